"""A query vector to hits: exact, filtered, judged; on the one thread that owns the vector indexes.

columns       the values of payload keys over all rows of a release
delta         live changes over one release: which of its items are hidden, which are added
duplicates    pairs of images that are nearly the same
fields        what the payloads of a release hold: each field with its kind, its common values, its range
filters       Qdrant's filters over the payloads of a release, as exact masks over its rows
gallery_view  the release and its delta as one request sees them
hits          a query vector to hits
phrasing      how a short query is asked: as typed, or in the templates of the encoder
ranking       exact search over a release and what is laid over it
relevance     how relevant hits are, and whether anything matches
thread        the one thread that owns the vector indexes
"""
