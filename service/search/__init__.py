"""A query vector to hits: exact, filtered, judged; on the one thread that owns the vector indexes.

columns     the values of payload keys over all rows of a release
duplicates  pairs of images that are nearly the same
fields      what the payloads of a release hold: each field with its kind, its common values, its range
filters     Qdrant's filters over the payloads of a release, as exact masks over its rows
hits        A query vector to hits
ranking     exact search over a release and what is laid over it
relevance   how relevant hits are, and whether anything matches
thread      the one thread that owns the vector indexes
wanted      what a request wants found, and finding it on the search thread: one query, or many in one hop
"""
