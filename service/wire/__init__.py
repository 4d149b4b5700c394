"""What requests and answers look like: models, bodies, bytes, and the API's own description.

    answers        outcomes to response bodies
    bodies         request bodies to validated requests: JSON, raw images, multipart; one way in for each
    documentation  what holds for every operation, added to the API's own description
    drift          the wire model of `GET /drift`, for its documentation and for who draws it
    examples       examples of requests and answers for the API's description
    live           the wire models of live changes
    openapi        the API's description: what FastAPI finds in the routes, and what it cannot find there
    operation      what `/healthz`, `/readyz` and `/release` answer, for their documentation
    schemas        the wire models: what requests must look like, and what answers do (for the documentation)

Computes no embedding and no score.
"""
