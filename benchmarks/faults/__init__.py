"""What the service must survive, put on it for real: run by hand, each with its own exit status.

    images    thousands of random and spoiled images; mutants: how they are spoiled
    requests  thousands of bad and odd requests; oddities: what is done to good ones, odd_values: with what
    stalls    how long others wait while requests come at their limits; limits: which
    leavers   callers that leave in the middle of a request
    overload  ten times what it can do, for a minute
    soak      an hour of mixed requests, changes and swaps; mixture: which; levels: what may not grow
    swaps     hundreds of swaps of releases under load
    kills     hundreds of kills under puts and deletes; ledger: what was acknowledged; fork_server: quick starts
    failover  services that take over from each other on one folder of releases, beside one that reads
    trial     the service, callers and readings that they share

The first of each line but the last is a command: `python -m benchmarks.faults.images`.
"""
