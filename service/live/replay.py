"""Live changes carried over to the release that is to be served: where the running service and they meet."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from service.live.upserts import Upserter

if TYPE_CHECKING:
    from service.live.commits import LiveChanges
    from service.serving import Serving
    from service.state import ServingState


def upserter_of(serving: "Serving", live: "LiveChanges") -> Upserter:
    return Upserter(serving.embedder, live.images, serving.pool)


@asynccontextmanager
async def with_live_changes(serving: "Serving", state: "ServingState") -> AsyncIterator["ServingState"]:
    """A loaded state with all live changes laid over it; none is made until the context is left."""
    live = serving.live
    if live is None:
        yield state
        return
    refresh = partial(upserter_of(serving, live).renewed, encoder=state.encoder)
    fingerprint = state.encoder.fingerprint
    async with live.replayed_over(state.delta, fingerprint=fingerprint, refresh=refresh) as delta:
        yield replace(state, delta=delta)
