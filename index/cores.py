"""How many processor cores this process may use."""

import os


def available_cores() -> int:
    """At least one; a container's CPU set counts where the system tells it."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
