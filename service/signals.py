"""Signals from the first moment of `python -m service` until the server takes them.

The usual action of SIGHUP ends a process; and process 1 of a container would not even hear SIGTERM. Imports the
standard library alone, so that it is at work before anything else is loaded.
"""

import logging
import os
import signal
from collections.abc import Callable
from types import FrameType

logger = logging.getLogger(__name__)
Handler = Callable[[int, FrameType | None], None]


class StartSignals:
    """SIGHUP is remembered; SIGTERM and SIGINT end the process at once, with 0: it has promised nothing yet."""

    def __init__(self) -> None:
        """Take them. Main thread only."""
        self._reload_asked = False
        handlers: dict[signal.Signals, Handler] = {
            signal.SIGHUP: self._remember,
            signal.SIGTERM: stop_at_once,
            signal.SIGINT: stop_at_once,
        }
        self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        signal.siginterrupt(signal.SIGHUP, False)  # libraries in C go on with what they wait for

    def leave(self) -> None:
        """Back to what was before, for a command that serves nothing. Main thread only."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def reload_was_asked(self) -> bool:
        """Whether SIGHUP came."""
        return self._reload_asked

    def _remember(self, _number: int, _frame: FrameType | None) -> None:
        self._reload_asked = True


def stop_at_once(number: int, _frame: FrameType | None = None) -> None:
    """End the process here and now, whatever it waits for. Its decoders end when they see that it has."""
    try:
        logger.info("stopped by %s", signal.Signals(number).name)
    finally:  # whatever is wrong with the log
        os._exit(0)
