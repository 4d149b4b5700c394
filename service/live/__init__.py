"""Changes of the gallery while it is served: made durable, applied over the release, replayed over the next.

    commits       changes made durable in groups, then applied to what is served
    delta         live changes over one release: which of its items are hidden, which are added
    gallery_view  the release and its delta as one request sees them
    replay        live changes replayed over the release that is to be served
    upserts       from what a caller sends to changes that can be committed: checked, embedded

How changes are kept on disk is `index.journal`'s.
"""
