"""Changes of the gallery while it is served: kept, laid over the release, carried to the next one.

    commits   changes made durable in groups, and laid over what is served
    upserts   from what a caller wants put to changes that can be committed: checked, embedded
    overlay   live changes over one release: which of its items are hidden, and which are added
    carrying  live changes carried over to the release that is to be served
    holdings  what the gallery holds for one request
    layers    vectors that only ever grow, and views of them that stay what they were when they were taken
    puts      the added items of an overlay, as filters read them

How changes are kept on disk is `index.journal`'s.
"""
