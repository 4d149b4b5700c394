"""Changes of the gallery while it is served: made durable, applied over the release, replayed over the next.

commits  changes made durable in groups, then applied to what is served
upserts  from what a caller sends to changes that can be committed: checked, embedded

How changes are kept on disk is `index.journal`'s.
"""
