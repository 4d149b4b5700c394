"""Batches across requests, on the one thread that owns the device.

embedding       images and texts of one request to outcomes
texts           texts to token ids; short queries by the sentences that the bundle asks them in
cache           embeddings that were computed before, by a SHA-256 of what they were computed from
admission       who may queue, and when to come again: bounds in items and bytes, and the deadline
queues          the queue of one kind of item: how much one batch takes of it, how long what waits will take
fair_scheduler  who is next: callers in turn, short requests before long ones within a budget
batches         one batch built and encoded, and halved when that fails or memory runs out
batching        the device thread
health          whether the device serves: stalls, an encoder that fails, a thread that dies
tickets         items, and the tickets they belong to, between requests and the device thread
"""
