"""Exponential backoff: when to try again what failed."""

MAX_PAUSE_SECONDS = 300.0


class Backoff:
    """Allows a name at once when it is new, then after a pause that doubles with each try."""

    def __init__(self, first_pause_seconds: float) -> None:
        self._first = first_pause_seconds
        self._name = ""
        self._pause = 0.0
        self._not_before = 0.0

    def allows(self, name: str, now: float) -> bool:
        """Whether to try `name` at `now` (seconds); True counts as a try."""
        if name == self._name and now < self._not_before:
            return False
        self._pause = min(2 * self._pause, MAX_PAUSE_SECONDS) if name == self._name else self._first
        self._name, self._not_before = name, now + self._pause
        return True
