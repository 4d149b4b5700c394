"""`/healthz`, `/readyz`, `/metrics`, `/release`, `/release/reload` and `/drift`."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import PlainTextResponse, Response

from encoders.verdict import Check
from index.manifest import GateSummary
from service.edge.middleware import context_of
from service.errors import Unavailable
from service.load_failure import LoadFailure
from service.routes.parts import answers, json_answer, requires, serving_of
from service.search.relevance import Judge
from service.serving import Loading
from service.state import ServingState
from service.wire.answers import dump
from service.wire.drift import DriftAnswer
from service.wire.operation import (
    HealthAnswer,
    ReadyAnswer,
    ReleaseAnswer,
    ReloadAnswer,
    StillLoadingAnswer,
)

router = APIRouter(tags=["operation"])
ANSWER_SECONDS = 0.5  # before the deadline of a reload: its answer has to arrive, too
_STILL_LOADING = {
    "model": StillLoadingAnswer,
    "description": "It goes on loading: `location` says where to look",
    "headers": {
        "location": {"description": "path of /release", "schema": {"type": "string"}},
        "retry-after": {"description": "seconds", "schema": {"type": "string", "pattern": "^[0-9]+$"}},
    },
}


@router.get("/healthz", responses=answers(HealthAnswer))
async def healthz() -> dict[str, str]:
    """The process lives."""
    return {"status": "alive"}


@router.get("/readyz", responses=answers(ReadyAnswer, 503))
async def readyz(request: Request) -> dict[str, Any]:
    """200 only when both towers and the index are warm and the last batch came back.

    `refused`: the release that CURRENT names, where it could not be served; the one before it serves on.
    """
    serving = serving_of(request)
    reason = serving.unhealthy_reason()
    if reason:
        raise Unavailable(reason, code="not_ready", retry_after_seconds=1)
    refused = serving.refused
    told = {"refused": {"release": refused.release, "reason": refused.reason}} if refused else {}
    return {"status": "ready", "release": serving.state.release.id, **told}


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    # In a thread of neither pool: what fills the pools is what one looks for here.
    body = await asyncio.to_thread(serving_of(request).telemetry.render)
    return Response(body, media_type=CONTENT_TYPE_LATEST)


@router.get("/release", responses=answers(ReleaseAnswer, 503))
async def release(
    request: Request,
    details: Annotated[
        bool, Query(description="also how the release and its encoder were checked: some 13 kB")
    ] = False,
) -> Response:
    """What is served: release, encoder, counts.

    `refused`: the release that CURRENT names, where it could not be served, with the reason; else null.
    `loading`: a reload that runs. `live`: the changes that are laid over it; null where none are taken.
    `details`: recall against exact search, the gate's verdict with each check, the evaluation's figures.
    """
    serving = serving_of(request)
    state = serving.state
    manifest, encoder = state.release.manifest, state.encoder
    answer: dict[str, Any] = {
        "release": manifest.id,
        "created": manifest.created.isoformat(),
        "loaded": _moment(state.loaded_at),
        "model": encoder.name,
        "model_fingerprint": encoder.fingerprint,
        "dim": encoder.dim,
        "device": str(encoder.device),
        "precision": encoder.precision,
        "engine": encoder.engine,
        "compiling": serving.compiling,
        "context_length": encoder.context_length,
        "counts": manifest.counts.model_dump(),
        "live": serving.live and serving.live.summary(state.delta),
        "loading": serving.loading and _loading(serving.loading),
        "refused": serving.refused and _refused(serving.refused),
    }
    return json_answer(dump(answer | {"details": _details(state)} if details else answer))


@router.post(
    "/release/reload",
    dependencies=[requires("write")],
    responses={**answers(ReloadAnswer, 500, 503, 504), 202: _STILL_LOADING},
)
async def reload(request: Request) -> Response:
    """Serve what CURRENT names now, without dropping a request.

    202 when the deadline comes first: it goes on loading, and `/release` says how it ends.
    """
    serving, deadline = serving_of(request), context_of(request).deadline
    reloading = serving.begin_reload()
    if (left := deadline - time.perf_counter() - ANSWER_SECONDS) > 0:
        await asyncio.wait({reloading}, timeout=left)
    if reloading.done():
        swapped = reloading.result()
        return json_answer(dump({"release": serving.state.release.id, "swapped": swapped}))
    loading = _loading(serving.loading or Loading(None))
    return Response(
        dump({"release": serving.state.release.id, "swapped": False, "loading": loading}),
        status_code=202,
        headers={"location": f"{request.scope['root_path']}/release", "retry-after": "1"},
        media_type="application/json",
    )


@router.get("/drift", responses=answers(DriftAnswer, 503))
async def drift(request: Request) -> Response:
    """How far live queries and the gallery lie from what the encoder was proven on.

    Of the last 2,000 queries by text and by image, since the start or since another encoder was served. Only
    sums are kept of them.
    """
    answer = await asyncio.to_thread(serving_of(request).state.drift.answer)
    return json_answer(dump(answer.model_dump()))


def _details(state: ServingState) -> dict[str, Any]:
    manifest = state.release.manifest
    return {
        "recall": {space: measured.model_dump() for space, measured in manifest.recall.items()},
        "gallery": {"kind": manifest.gallery.kind},
        "difference": manifest.difference and manifest.difference.model_dump(),
        "gate": _gate(manifest.gate, state.checks),
        "calibration": _calibration(state.judge),
        "report": state.report,
    }


def _gate(verdict: GateSummary | None, checks: Sequence[Check]) -> dict[str, Any] | None:
    if verdict is None:
        return None
    details = [check.model_dump(mode="json") for check in checks]
    return verdict.model_dump(mode="json") | {"details": details}


def _calibration(judge: Judge | None) -> dict[str, Any] | None:
    """Where relevance comes from and how well it holds; the weights are the bundle's business."""
    if judge is None:
        return None
    told = {"likely", "perhaps", "gallery_sizes", "figures"}
    searches = {name: each.model_dump(include=told) for name, each in judge.calibration.searches.items()}
    return {"fitted_on": judge.calibration.fitted_on, "searches": searches}


def _loading(loading: Loading) -> dict[str, str | None]:
    return {"release": loading.release, "since": _moment(loading.since)}


def _refused(refusal: LoadFailure) -> dict[str, Any]:
    return {
        "release": refusal.release,
        "reason": refusal.reason,
        "message": refusal.message,
        "tries": refusal.tries,
        "since": _moment(refusal.since),
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
