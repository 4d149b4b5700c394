"""Changes of a gallery between two rebuilds: a journal beside the releases, the pictures that came with it, and
how a rebuild folds both into the next release.

Knows nothing of HTTP or encoders.
"""
