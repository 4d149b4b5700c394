"""Measurements of encoder, index, service and evaluation on the machine at hand: `python -m benchmarks`.

Never run as tests. What each figure means is in docs/performance.md.
"""
