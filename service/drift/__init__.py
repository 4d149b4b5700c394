"""How far what comes lies from what the encoder was proven on.

drift    the drift of one release: its references, and the windows of queries that are set beside them
pairs    what relevance a good query can expect
verdict  from departures to "as proven", "has moved" or "far", in plain language
windows  sums over the last queries, and what is compared of them
"""
