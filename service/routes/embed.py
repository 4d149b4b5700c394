"""`/embed/image` and `/embed/text`."""

from collections.abc import Sequence
from functools import partial

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.decoding.images import ImageSource
from service.device.embedding import TextItem
from service.device.tickets import Outcome
from service.edge.middleware import context_of
from service.routes.parts import answers, computed, json_answer, serving_of, takes_json
from service.serving import Serving
from service.state import ServingState
from service.wire.answers import (
    INLINE_NUMBERS,
    Model,
    VectorForm,
    embed_json,
    embed_rows,
    raise_when_all_failed,
)
from service.wire.bodies import check_count, read_body, read_files, read_json, read_options
from service.wire.content_types import IMAGES_TAKEN, MULTIPART, ContentType
from service.wire.schemas import EmbedAnswer, EmbeddingOptions, EmbedImageRequest, EmbedTextRequest

router = APIRouter(tags=["embed"])
OCTETS = "application/octet-stream"
IMAGE = {"schema": {"type": "string", "format": "binary"}}
IMAGES = {
    "schema": {
        "type": "object",
        "required": ["images"],
        "properties": {"images": {"type": "array", "items": {"type": "string", "format": "binary"}}},
    }
}


@router.post(
    "/embed/image",
    responses=answers(EmbedAnswer, 400, 413, 415, 422, 429, 500, 503, 504),
    openapi_extra=takes_json(
        EmbedImageRequest,
        beside=EmbeddingOptions,
        image__webp=IMAGE,
        image__jpeg=IMAGE,
        image__png=IMAGE,
        multipart__form_data=IMAGES,
    ),
)
async def embed_image(request: Request) -> Response:
    """Embed one image (the body itself) or several (multipart `images`, or JSON with base64)."""
    serving, context = serving_of(request), context_of(request)
    state = serving.state
    sources, options = await _image_request(request, serving)
    form = _form(options, state)
    outcomes = await serving.embedder.images(
        state.encoder, sources, deadline=context.deadline, timings=context.timings
    )
    return await _answer(request, state, outcomes, form=form)


@router.post(
    "/embed/text",
    responses=answers(EmbedAnswer, 400, 413, 415, 422, 429, 500, 503, 504),
    openapi_extra=takes_json(EmbedTextRequest),
)
async def embed_text(request: Request) -> Response:
    """Embed one text or several."""
    serving, context = serving_of(request), context_of(request)
    state = serving.state
    asked = await read_json(request, EmbedTextRequest, pool=serving.pool)
    texts = [asked.texts] if isinstance(asked.texts, str) else asked.texts
    check_count(len(texts), serving.settings.max_texts, name="texts")
    form = _form(asked, state)
    outcomes = await serving.embedder.texts(
        state.encoder,
        [TextItem(text, may_be_cut=asked.truncate == "end") for text in texts],
        deadline=context.deadline,
        timings=context.timings,
    )
    return await _answer(request, state, outcomes, form=form)


async def _image_request(request: Request, serving: Serving) -> tuple[list[ImageSource], EmbeddingOptions]:
    kind, limit, pool = ContentType.of(request.headers), serving.settings.max_images, serving.pool
    if kind.is_image:
        body = await read_body(request, pool=pool)
        return [body], await read_options(request.query_params, EmbeddingOptions, pool=pool)
    if kind.name == MULTIPART:
        files, fields = await read_files(request, "images", boundary=kind.boundary, limit=limit, pool=pool)
        return files, await read_options({**fields, **request.query_params}, EmbeddingOptions, pool=pool)
    if not kind.is_json:
        raise kind.refusal(taken=IMAGES_TAKEN)
    asked = await read_json(request, EmbedImageRequest, pool=serving.pool, max_bytes=None)
    images = [asked.images] if isinstance(asked.images, str) else asked.images
    check_count(len(images), limit, name="images")
    return list(images), asked


def _form(options: EmbeddingOptions, state: ServingState) -> VectorForm:
    form = VectorForm(as_base64=options.encoding_format == "base64", dimensions=options.dimensions)
    form.check(state.encoder.dim)
    return form


async def _answer(
    request: Request, state: ServingState, outcomes: Sequence[Outcome], *, form: VectorForm
) -> Response:
    raise_when_all_failed(outcomes)
    serving, encoder = serving_of(request), state.encoder
    model = Model(encoder.name, encoder.fingerprint, encoder.dim)
    inline = len(outcomes) * encoder.dim <= INLINE_NUMBERS
    if OCTETS in request.headers.get("accept", ""):
        rows, failures = await computed(serving, partial(embed_rows, model, outcomes, form=form), inline=inline)
        headers = {"x-dim": str(form.dimensions or model.dim), "x-model-fingerprint": model.fingerprint}
        return Response(
            rows, media_type=OCTETS, headers=headers | ({"x-item-errors": failures} if failures else {})
        )
    return json_answer(await computed(serving, partial(embed_json, model, outcomes, form=form), inline=inline))
