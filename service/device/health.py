"""Whether the device serves: a batch that never comes back, an encoder that fails on known good input, a thread
that is thrown out of its work again and again.

Written by the device thread, read by any.
"""

import logging
import time
from collections.abc import Callable

from encoders.encoder import Encoder

logger = logging.getLogger(__name__)
MOST_DEATHS = 3  # of the work on the device thread, until it is not begun again


class Health:
    """`probe` encodes something known to be good; it raises where the encoder fails on it."""

    def __init__(self, probe: Callable[[Encoder], object], *, stall_seconds: float) -> None:
        self._probe = probe
        self._stall_seconds = stall_seconds
        self._busy_since: float | None = None
        self._fault: tuple[float, str] | None = None  # since when, and why nothing can be served
        self._deaths = 0
        self._adopted: Encoder | None = None

    @property
    def is_busy(self) -> bool:
        return self._busy_since is not None

    def stuck(self) -> str | None:
        """Why what would queue now would only pass its deadline, or None."""
        if (seconds := self._stalled_seconds()) > self._stall_seconds:
            return f"a batch has been on the device for {seconds:.3g} s"
        return self._fault[1] if self._fault and self._deaths > MOST_DEATHS else None

    def unhealthy_reason(self) -> str | None:
        """Say why nothing can be served just now; None while healthy."""
        fault = self._fault
        return self.stuck() or (fault[1] if fault else None)

    def unhealthy_seconds(self) -> float:
        """Measure how long nothing could be served; 0 while healthy."""
        fault = self._fault
        return max(self._stalled_seconds(), time.perf_counter() - fault[0] if fault else 0.0)

    def begin(self) -> None:
        """A piece of work begins."""
        self._busy_since = time.perf_counter()

    def end(self) -> None:
        self._busy_since = None

    def adopt(self, encoder: Encoder) -> None:
        """Trouble is about this encoder from now on."""
        self._adopted = encoder
        self.check(encoder)

    def check(self, encoder: Encoder) -> None:
        """Is it the input that was bad, or the device? Tries the adopted encoder; until there is one, this."""
        try:
            self._probe(self._adopted or encoder)
        except Exception as error:  # any failure of a known good input is the same news
            logger.exception("the encoder fails on a known good input")
            self._note_fault(f"the encoder fails on a known good input: {error}")
        else:
            self._fault = None

    def suspect(self) -> Encoder | None:
        """The encoder to try again by and by; None while it is healthy."""
        return self._adopted if self._fault else None

    def died(self, error: BaseException) -> str | None:
        """The work ended with this. Why it should not be begun again, or None: it should."""
        self.end()
        self._deaths += 1
        if self._deaths <= MOST_DEATHS:
            return None
        words = f"the device thread died {self._deaths} times, at last of {error!r}"
        self._note_fault(words)
        return words

    def _note_fault(self, words: str) -> None:
        since = self._fault[0] if self._fault else time.perf_counter()
        self._fault = since, words

    def _stalled_seconds(self) -> float:
        since = self._busy_since
        return time.perf_counter() - since if since is not None else 0.0
