"""What both clients share: where to send and how, and the copy of a client that has other options."""

from copy import copy
from dataclasses import replace
from typing import Any, Self, TypeVar

from twinlens.calls import Call
from twinlens.exchange import Options, Send

T = TypeVar("T")


class Configured:
    """Where to send and how; the copy that `with_options` makes shares the connections."""

    def __init__(self, url: str, options: Options, *, owns_http: bool) -> None:
        self._url = url.rstrip("/")
        self._options = options
        self._owns_http = owns_http

    def with_options(
        self,
        *,
        deadline_seconds: float | None = None,
        retries: int | None = None,
        request_id: str | None = None,
    ) -> Self:
        """The same client with other options, on the same connections: `client.with_options(…).search(…)`.

        `deadline_seconds` bounds a call with all its retries; `request_id` is what the service's log calls it.
        """
        now = self._options
        other = copy(self)
        other._options = replace(
            now,
            deadline_seconds=now.deadline_seconds if deadline_seconds is None else deadline_seconds,
            retries=now.retries if retries is None else retries,
            request_id=request_id or now.request_id,
        )
        other._owns_http = False
        return other

    def _request(self, step: Send, call: Call[T]) -> dict[str, Any]:
        """What both kinds of httpx client are given."""
        where = {"method": call.method, "url": self._url + call.path}
        return {**where, "headers": step.headers, "timeout": step.timeout_seconds, **call.body}
