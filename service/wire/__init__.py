"""What requests and answers look like: models, bodies, bytes.

answers        outcomes to response bodies
bodies         request bodies to validated requests: JSON, raw images, multipart; one way in for each
content_types  what a request says that its body is
drift          the wire model of `GET /drift`
forms          multipart forms, within bounds
idempotency    what makes a change safe to send again
ids            item ids in paths and queries
large_json     JSON whose size is checked before it is parsed
live           the wire models of live changes
operation      what `/healthz`, `/readyz` and `/release` answer
schemas        the wire models: what requests must look like, and what answers do
"""
