"""Measurements of encoder, index, service and evaluation on the machine at hand: `python -m benchmarks`.

    run            all of it in order; plan: for how long; report: as tables and JSON; machine: measured on what
    encoder        the encoder and decoding alone; inputs: what is embedded and searched
    http, load     the service in a process of its own, and what loads it; comparison: with the encoder alone
    rebuild        the batch job
    search         exact search alone; million: over a million vectors, and through the service
    evaluation     what evaluation embeds in a second; ranking: a large set
    faults/        what the service must survive
    peer/          side by side with another server

Never run as tests. What each figure means is in docs/performance.md.
"""
