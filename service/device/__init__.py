"""Batches across requests, on the one thread that owns the device.

admission       who may queue, and when to come again: bounds in items and bytes, and the deadline
attempts        one batch through its builder, and what is done when that fails
batch_builders  batches of pixels and of tokens
batching        batches across requests, on the one thread that owns the device
cache           embeddings that were computed before, by what they were computed from
digests         what an embedding was computed from, as one SHA-256
embedding       images and texts of one request to outcomes
fair_scheduler  who is next: callers in turn, short requests before long ones within a budget
health          whether the device serves: stalls, an encoder that fails, a thread thrown out of its work
memory          when a device runs out of memory: how that is told from other failures, and what is given back
mixed           images and texts of one request embedded together, each kind as one batch
queues          the queue of one kind of item: how much one batch takes of it, and how long what waits will take
tickets         what moves between requests and the device thread: items, and the tickets they belong to
tokenizing      texts to token ids on their way to the device; a text that cannot be taken gets its own error
"""
