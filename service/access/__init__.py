"""Who may call, and how much of the service each caller may have.

access    who calls, and how much of the service each caller may have at once
commands  `python -m service keys`: create, list and revoke API keys
keys      API keys: made, kept as digests in a file, found again by what a caller sends
origins   which hosts and origins may ask, where there are no keys
passes    passes for images: what lets an <img> of the search page load an image while API keys are on
quotas    how much of one queue each caller holds
"""
