"""The body of one request as it comes in: how large and how slow it may be, whether its caller is there."""

import asyncio
import time

from starlette.datastructures import Headers
from starlette.types import Message, Receive

from service.errors import BodyTooSlow, CallerGone, QueueFull, TooLarge
from service.serving import Serving

DISCARD_SECONDS = 5.0
SMALL_BODY_BYTES = 65_536  # taken even when the bodies in flight are too much: a query must get through


class RequestBody:
    """Stands between the server's `receive` and the application's."""

    def __init__(self, receive: Receive, headers: Headers, *, serving: Serving) -> None:
        self._receive_next, self._headers, self._serving = receive, headers, serving
        self.caller_gone = False
        self.answered = False  # the edge says so: from then on nobody is cancelled for having left
        self._bytes = 0
        self._begun_at: float | None = None
        self._ended = False
        self._watcher: asyncio.Task[None] | None = None

    @property
    def awaits_continue(self) -> bool:
        """Whether the caller waits to be asked for the body, and has not been."""
        return self._begun_at is None and self._headers.get("expect", "").lower() == "100-continue"

    def refuse_announced_size(self) -> None:
        announced = self._headers.get("content-length", "0")
        limit = self._serving.settings.max_body_bytes
        if announced.isascii() and announced.isdigit() and (len(announced) > 18 or int(announced) > limit):
            raise TooLarge(f"the body has {announced[:40]} bytes and {limit} are taken: send less at once")

    async def receive(self) -> Message:
        """The next part. Raises CallerGone, TooLarge, QueueFull or BodyTooSlow."""
        if self._ended:
            return await self._receive_next()
        message = await self._in_time()
        if message["type"] != "http.request":
            raise CallerGone(f"the caller left after {self._bytes} bytes of the body")
        size = len(message.get("body", b""))
        self._bytes += size
        self._serving.bodies_bytes += size
        self._ended = not message.get("more_body", False)
        await self._refuse_too_much()
        if self._ended:
            self._watcher = asyncio.create_task(self._watch_caller(asyncio.current_task()))
        return message

    async def discard(self) -> None:
        """Read and forget a while: closing while the caller still sends would cost it the answer."""
        self._let_go()
        if self.awaits_continue or self._ended:
            return
        try:
            async with asyncio.timeout(DISCARD_SECONDS):
                while (await self._receive_next()).get("more_body", False):
                    pass
        except TimeoutError:
            pass

    def close(self) -> None:
        """The request is over."""
        self._let_go()
        if self._watcher is not None:
            self._watcher.cancel()

    def _let_go(self) -> None:
        self._serving.bodies_bytes -= self._bytes
        self._bytes = 0

    async def _in_time(self) -> Message:
        """A fixed time, and more for what has come: a trickle ends early, an upload on a thin line does not."""
        settings = self._serving.settings
        now = time.perf_counter()
        self._begun_at = begun_at = now if self._begun_at is None else self._begun_at
        allowed = settings.body_seconds + self._bytes / settings.body_bytes_per_second
        try:
            async with asyncio.timeout(begun_at + allowed - now) as limit:
                return await self._receive_next()
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise BodyTooSlow(
                f"{self._bytes} bytes of the body came in {allowed:.0f} s: "
                f"send it at {settings.body_bytes_per_second} bytes a second at least, or less of it"
            ) from error

    async def _refuse_too_much(self) -> None:
        settings = self._serving.settings
        if self._bytes > settings.max_body_bytes:
            await self.discard()
            raise TooLarge(
                f"the body exceeds the {settings.max_body_bytes} bytes that are taken: send less at once"
            )
        over_budget = self._serving.bodies_bytes > settings.max_bodies_bytes
        if over_budget and self._bytes > SMALL_BODY_BYTES:
            await self.discard()
            raise QueueFull(
                f"the requests in flight hold {settings.max_bodies_bytes} bytes already: send this again",
                code="bodies_full",
                retry_after_seconds=1,
            )

    async def _watch_caller(self, handler: "asyncio.Task[object] | None") -> None:
        """Once the body is in, the next thing to hear of the caller is that it left."""
        message = await self._receive_next()
        if message["type"] == "http.disconnect" and not self.answered and handler is not None:
            self.caller_gone = True
            handler.cancel()
