"""Changes of the gallery while it is served: kept, laid over the release, carried to the next one.

    carrying  live changes carried over to the release that is to be served
    holdings  what the gallery holds for one request
    layers    vectors that only ever grow, and views of them that stay what they were when they were taken
    live      live changes of the running service
    overlay   live changes over one release: which of its items are hidden, and which are added
    puts      the added items of an overlay, as filters read them
    putting   from what a caller wants put to changes that can be kept: checked, embedded, pictures on the disk

Knows nothing of HTTP; how changes are kept on disk is `index.live`'s.
"""
