"""`/v1/embeddings` and `/v1/models`: OpenAI's shape, with Jina's objects for images."""

from functools import partial

from fastapi import APIRouter, Request
from starlette.responses import Response

from encoders.errors import TwinlensError
from encoders.short_queries import MOST_WORDS
from service.decoding.images import ImageSource
from service.device.embedding import TextItem, embed_mixed
from service.device.tickets import Embedded, Outcome
from service.edge.middleware import context_of
from service.errors import InvalidField, NotFound, ServiceError, report
from service.routes.parts import answers, computed, json_answer, serving_of, takes_json
from service.state import ServingState
from service.wire.answers import INLINE_NUMBERS, Model, VectorForm, dump, openai_json
from service.wire.bodies import MANY, check_count, read_json, validated
from service.wire.schemas import OpenAIAnswer, OpenAIItem, OpenAIModel, OpenAIModels, OpenAIRequest

router = APIRouter(prefix="/v1", tags=["OpenAI"])


@router.post(
    "/embeddings",
    responses=answers(OpenAIAnswer, 400, 404, 413, 415, 422, 429, 500, 503, 504),
    openapi_extra=takes_json(OpenAIRequest),
)
async def embeddings(request: Request) -> Response:
    """Embed texts and images in OpenAI's shape; one bad item fails the request."""
    serving, context = serving_of(request), context_of(request)
    state = serving.state
    asked = await read_json(request, OpenAIRequest, pool=serving.pool, max_bytes=None, bounds=MANY)
    _check_model(asked.model, state)
    form = VectorForm(as_base64=asked.encoding_format == "base64", dimensions=asked.dimensions)
    form.check(state.encoder.dim)
    most_images, most_texts = serving.settings.max_images, serving.settings.max_texts
    inputs = _inputs(asked, limit=most_images + most_texts)
    for kind, limit in ((str, most_images), (TextItem, most_texts)):
        check_count(sum(isinstance(item, kind) for item in inputs), limit, name="inputs")
    outcomes = await embed_mixed(
        serving.embedder, state.encoder, inputs, deadline=context.deadline, timings=context.timings
    )
    embedded = [_succeeded(index, outcome) for index, outcome in enumerate(outcomes)]
    model = Model(state.encoder.name, state.encoder.fingerprint, state.encoder.dim)
    inline = len(embedded) * model.dim <= INLINE_NUMBERS
    return json_answer(await computed(serving, partial(openai_json, model, embedded, form=form), inline=inline))


@router.get("/models", responses=answers(OpenAIModels))
async def list_models(request: Request) -> Response:
    """The one model that is served."""
    return json_answer(dump({"object": "list", "data": [_model(serving_of(request).state)]}))


@router.get("/models/{model_id:path}", responses=answers(OpenAIModel, 404))
async def get_model(request: Request, model_id: str) -> Response:
    """The model that is served, by its name or its fingerprint."""
    state = serving_of(request).state
    _check_model(model_id, state)
    return json_answer(dump(_model(state)))


def _model(state: ServingState) -> dict[str, object]:
    short = state.encoder.short_queries
    return {
        "id": state.encoder.name,
        "object": "model",
        "created": int(state.encoder.bundle.config.created.timestamp()),
        "owned_by": "twinlens",
        "model_fingerprint": state.encoder.fingerprint,
        "dim": state.encoder.dim,
        "short_queries": short
        and {
            "templates": short.templates,
            "most_words": MOST_WORDS,
            "remembered_phrases": 0 if short.memory is None else len(short.memory.keys),
        },
    }


def _check_model(name: str | None, state: ServingState) -> None:
    if name not in (None, state.encoder.name, state.encoder.fingerprint):
        raise NotFound(
            f"model {(name or '')[:80]!r} is not served; {state.encoder.name!r} is",
            param="model",
            code="model_not_found",
        )


def _inputs(asked: OpenAIRequest, *, limit: int) -> list[ImageSource | TextItem]:
    """Each input as an image source (str) or a text. Raises TooLarge or InvalidField, for token ids too."""
    given = [asked.input] if isinstance(asked.input, str) else asked.input
    if isinstance(given[0], str | dict):  # what is token ids is told as such, however many
        check_count(len(given), limit, name="inputs")
    return [_input(item, index, asked.modality) for index, item in enumerate(given)]


def _input(item: object, index: int, modality: str) -> ImageSource | TextItem:
    if isinstance(item, int | list):
        raise InvalidField(
            f"input.{index} is token ids, which are not taken: send the text "
            "(LangChain: check_embedding_ctx_length=False)",
            param="input",
            code="token_ids_not_taken",
        )
    if isinstance(item, str):
        return item if modality == "image" else TextItem(item, may_be_cut=True)
    try:
        one = validated(OpenAIItem, item)
    except InvalidField as error:
        raise InvalidField(f"input.{index}: {error}", param="input") from error
    image = one.image_url.url if one.image_url else one.image
    given = [value is not None for value in (one.text, one.image, one.image_url)]
    if sum(given) != 1:
        raise InvalidField(f'input.{index} needs exactly one of "text", "image" and "image_url"', param="input")
    return TextItem(one.text, may_be_cut=True) if one.text is not None else image or ""


def _succeeded(index: int, outcome: Outcome) -> Embedded:
    if isinstance(outcome, TwinlensError):
        problem = report(outcome)
        failure = ServiceError(f"input.{index}: {problem.message}", code=problem.code, param="input")
        failure.status = problem.status
        raise failure from outcome
    return outcome
