"""`/healthz`, `/readyz`, `/metrics`, `/release` and `/release/reload`."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from service.answers import dump
from service.errors import Unavailable
from service.routes.parts import answers, json_answer, serving_of
from service.schemas import ReloadAnswer

router = APIRouter(tags=["operation"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process lives."""
    return {"status": "alive"}


@router.get("/readyz")
async def readyz(request: Request) -> dict[str, str]:
    """200 only when both towers and the index are warm and the last batch came back."""
    serving = serving_of(request)
    trouble = serving.trouble()
    if trouble:
        raise Unavailable(trouble, code="not_ready", retry_after_seconds=1)
    return {"status": "ready", "release": serving.state.release.id}


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    return Response(serving_of(request).telemetry.render(), media_type=CONTENT_TYPE_LATEST)


@router.get("/release")
async def release(request: Request) -> Response:
    """What is served: release, encoder, counts, recall against exact search, the gate's verdict."""
    state = serving_of(request).state
    manifest, encoder = state.release.manifest, state.encoder
    answer: dict[str, Any] = {
        "release": manifest.id,
        "created": manifest.created.isoformat(),
        "loaded": datetime.fromtimestamp(state.loaded_at, UTC).isoformat(timespec="seconds"),
        "model": encoder.name,
        "model_fingerprint": encoder.fingerprint,
        "dim": encoder.dim,
        "device": str(encoder.device),
        "precision": encoder.precision,
        "context_length": encoder.context_length,
        "counts": manifest.counts.model_dump(),
        "recall": {space: measured.model_dump() for space, measured in manifest.recall.items()},
        "gallery": {"kind": manifest.gallery.kind},
        "gate": manifest.gate.model_dump(mode="json") if manifest.gate else None,
        "report": state.report,
    }
    return json_answer(dump(answer))


@router.post("/release/reload", responses=answers(ReloadAnswer, 500, 503, 504))
async def reload(request: Request) -> dict[str, str | bool]:
    """Serve what CURRENT names now, without dropping a request."""
    serving = serving_of(request)
    swapped = await serving.reload()
    return {"release": serving.state.release.id, "swapped": swapped}
