"""What the machine gives this process, checked before it starts: open files, and who goes first without memory.

A shortage is a warning with what is needed, never a refusal: until it is felt, the service serves.
"""

import contextlib
import logging
import resource
from collections.abc import Iterable
from pathlib import Path

from index.cores import available_cores
from service.control_groups import memory_groups, read_number
from service.settings import Settings

logger = logging.getLogger(__name__)
OTHER_FILES = 64
"""Beside connections, decoders and images that are read: the event loop, libraries, the journal, and two
releases while one takes the other's place. 23 were seen at most."""
HIGH_OOM_SCORE = 250  # thousandths of the memory that are added to what the service holds; containers have 0
_OOM_SCORE = Path("/proc/self/oom_score_adj")


def check_machine(settings: Settings) -> None:
    """Raise the limit on open files as far as it may be, and warn of what will be short under load."""
    _check_open_files(settings)
    check_memory_order(memory_groups())


def files_needed(settings: Settings) -> int:
    """Files and sockets that the service holds at most."""
    return settings.max_connections + 2 * _decoders(settings) + available_cores() + OTHER_FILES


def _decoders(settings: Settings) -> int:
    return available_cores() if settings.decode_workers is None else settings.decode_workers


def _check_open_files(settings: Settings) -> None:
    needed, (soft, hard) = files_needed(settings), resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    may_have = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    with contextlib.suppress(OSError, ValueError):  # a sandbox that lets no limit be changed
        resource.setrlimit(resource.RLIMIT_NOFILE, (may_have, hard))
        soft = may_have
    if soft < needed:
        logger.warning(
            "this process may have %d files open (ulimit -n) and needs up to %d, of which %d for "
            "max_connections: beyond the limit callers are refused, and no release is taken up. Raise it to %d "
            "(ulimit -n; in systemd LimitNOFILE, in Docker --ulimit nofile), or lower max_connections",
            *(soft, needed, settings.max_connections, needed),
        )


def check_memory_order(groups: Iterable[Path]) -> None:
    """Warn of what keeps decoders from being the first to go when memory runs out; `groups` are our own."""
    score = read_number(_OOM_SCORE) or 0
    if score > HIGH_OOM_SCORE:
        logger.warning(
            "oom_score_adj of this process is %d: when memory runs out while it holds more than %d%% of it, "
            "the kernel ends it before its decoders. Set 0 (in systemd OOMScoreAdjust, in Docker "
            "--oom-score-adj; in Kubernetes it is low where the request of memory is as high as the limit)",
            *(score, (1000 - score) // 10),
        )
    for group in groups:
        if read_number(group / "memory.oom.group"):
            logger.warning(
                "%s is 1: when memory runs out, the kernel ends the service together with its decoders. Set 0 "
                "(in systemd OOMPolicy=continue, in Kubernetes singleProcessOOMKill: true)",
                group / "memory.oom.group",
            )
