"""The wire models: what requests must look like, and what answers do (for the documentation).

Answers are written by `answers` without going through these: an embedding is thousands of numbers.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema, model_validator

Space = Literal["images", "texts"]
EncodingFormat = Literal["float", "base64"]
Truncate = Literal["end", "none"]
Expand = Literal["auto", "off", "templates"]
Verdict = Literal["match", "unsure", "nothing"]
Text = Annotated[str, StringConstraints(min_length=1)]
# The first bad one of a list is told, and no memory goes to a million others.
Strings = Annotated[list[str], Field(fail_fast=True)]
Vector = Annotated[list[float], Field(fail_fast=True)]

MAX_K = 1000
MAX_FIELDS = 64  # of an object with fixed fields: an error is made for each unknown one, and one is told
MAX_OFFSET = 10_000


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EmbeddingOptions(_Request):
    encoding_format: EncodingFormat = Field("float", description="base64: little-endian float32")
    dimensions: int | None = Field(None, ge=1, description="cut to so many numbers, then made unit again")


class EmbedTextRequest(EmbeddingOptions):
    texts: str | Strings = Field(min_length=1, description="one text or several")
    truncate: Truncate = Field("end", description="none: a text that does not fit is an error, not cut")


class EmbedImageRequest(EmbeddingOptions):
    images: str | Strings = Field(min_length=1, description="base64 or data: URI each; URLs are refused")


class ImageUrl(_Request):
    url: str = Field(description="data: URI; nothing is ever fetched")

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, given: object) -> object:
        if isinstance(given, dict) and len(given) > MAX_FIELDS:
            raise ValueError(f"{len(given)} fields stand together, and no more than {MAX_FIELDS} are taken")
        return given


class OpenAIItem(_Request):
    """An input as Jina has it, or as a part of a chat message: exactly one text or image."""

    type: Literal["text", "image_url"] | None = Field(None, description="of a part; says nothing new")
    text: str | None = None
    image: str | None = None
    image_url: ImageUrl | None = None


# Read one by one, by what each is: a union tries every kind on each of a million token ids.
OpenAIInput = Annotated[
    Any,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"$ref": "#/components/schemas/OpenAIItem"},
                {"type": "integer"},
                {"type": "array", "items": {"type": "integer"}},
            ]
        }
    ),
]


class OpenAIRequest(_Request):
    """OpenAI's embeddings request, with Jina's objects for images. Unknown fields are ignored as there."""

    model_config = ConfigDict(extra="ignore")
    model: str | None = None
    input: str | list[OpenAIInput] = Field(min_length=1)
    encoding_format: EncodingFormat = "float"
    dimensions: int | None = Field(None, ge=1)
    modality: Literal["text", "image"] = "text"
    user: str | None = None


class SearchOptions(_Request):
    k: int = Field(10, ge=1, le=MAX_K)
    offset: int = Field(0, ge=0, le=MAX_OFFSET)
    space: Space = Field("images", alias="in", description="what is searched")
    filter: dict[str, Any] | None = Field(None, description="Qdrant's form: must, must_not, should")
    score_threshold: float | None = Field(
        None, ge=-1, le=1, allow_inf_nan=False, description="least cosine of a result"
    )
    with_payload: bool = True
    with_vector: bool = False
    truncate: Truncate = "end"
    expand: Expand = Field(
        "auto",
        description="whether a text that looks for images is asked by the bundle's templates: auto, where "
        "it is up to four words and no sentence; off, never; templates, always",
    )
    count_in_drift: bool = Field(True, description="false: an example or a test, which drift leaves out")


class SearchTextRequest(SearchOptions):
    query: Text


class SearchImageRequest(SearchOptions):
    image: Text = Field(description="base64 or data: URI; URLs are refused")


class SearchVectorRequest(SearchOptions):
    vector: Vector = Field(min_length=1)
    model_fingerprint: str = Field(description="of the encoder that made the vector; another is a 409")


class SearchItemRequest(SearchOptions):
    id: Text


class SearchBatchQuery(SearchOptions):
    """One query of a batch: exactly one of text, image, vector and id; options win over the batch's."""

    text: Text | None = None
    image: Text | None = Field(None, description="base64 or data: URI; URLs are refused")
    vector: Vector | None = Field(None, min_length=1)
    model_fingerprint: str | None = Field(None, description="of the encoder that made the vector")
    id: Text | None = Field(None, description="more like this item, which itself is left out")

    @model_validator(mode="after")
    def _asks_one_thing(self) -> Self:
        asked = [name for name in ("text", "image", "vector", "id") if getattr(self, name) is not None]
        if len(asked) != 1:
            told = " and ".join(asked) or "none"
            raise ValueError(f'a query needs exactly one of "text", "image", "vector" and "id", and has {told}')
        return self


class SearchBatchRequest(SearchOptions):
    """Options stand for every query that has none of its own. Queries are checked one by one."""

    queries: list[Annotated[Any, WithJsonSchema({"$ref": "#/components/schemas/SearchBatchQuery"})]] = Field(
        min_length=1
    )
    model_fingerprint: str | None = Field(None, description="of the encoder that made the vectors")


class ErrorDetail(BaseModel):
    code: str
    message: str
    param: str | None = None
    type: str


class ErrorAnswer(BaseModel):
    """The shape of every error."""

    error: ErrorDetail


class ItemError(BaseModel):
    code: str
    message: str


class EmbeddedItem(BaseModel):
    index: int
    embedding: list[float] | str | None = None
    truncated: bool | None = None
    error: ItemError | None = None


class EmbedAnswer(BaseModel):
    model_config = ConfigDict(protected_namespaces=())
    model: str
    model_fingerprint: str
    dim: int
    data: list[EmbeddedItem]


class OpenAIEmbedding(BaseModel):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class OpenAIAnswer(BaseModel):
    object: Literal["list"] = "list"
    data: list[OpenAIEmbedding]
    model: str
    usage: Usage


class ShortQueriesAnswer(BaseModel):
    """templates: the query stands where {} is; the mean of all is searched for."""

    templates: list[str]
    most_words: int
    remembered_phrases: int = Field(description="by which queries are moved towards what training showed")


class OpenAIModel(BaseModel):
    model_config = ConfigDict(protected_namespaces=())
    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="seconds since the epoch")
    owned_by: str
    model_fingerprint: str
    dim: int
    short_queries: ShortQueriesAnswer | None = Field(
        description="how queries of a few words are asked when images are searched; null: as they are typed"
    )


class OpenAIModels(BaseModel):
    object: Literal["list"] = "list"
    data: list[OpenAIModel]


class SearchHit(BaseModel):
    id: str
    score: float = Field(description="cosine")
    relevance: float | None = Field(
        None,
        description="calibrated, 0 to 1, never rising from one hit to the next; null where the bundle is not "
        "calibrated for this way of asking, as between two images or two texts",
    )
    text: str | None = Field(None, description="of a text result")
    items: list[str] | None = Field(None, description="of a text result: ids of up to 100 items it belongs to")
    item_count: int | None = Field(None, description="of a text result: how many items it belongs to")
    payload: dict[str, Any] | None = None
    vector: list[float] | None = None


class Levels(BaseModel):
    """Relevance from which on a hit is likely to fit, or perhaps does."""

    likely: float
    perhaps: float


class Judged(BaseModel):
    """What an answer says of itself."""

    verdict: Verdict | None = Field(
        None,
        description="of the best hit: match, where it is likely to fit; nothing, where it is not even perhaps; "
        "unsure in between, where the encoder cannot tell. Null where relevance is",
    )
    good_match: bool | None = Field(
        None, description="false where the verdict is nothing, null where it is null"
    )
    levels: Levels | None = Field(None, description="that the verdict goes by; null where it is null")
    templates: list[str] | None = Field(
        None, description="that a short query was asked by; null where it was asked as it was typed"
    )
    unknown_words: list[str] | None = Field(
        None,
        description="the words of the query, where the encoder learned none of them: relevance is null then",
    )


class SearchAnswer(Judged):
    model_config = ConfigDict(protected_namespaces=())
    results: list[SearchHit]
    release: str
    model_fingerprint: str
    truncated: bool = False


class SearchBatchItem(Judged):
    """The answer to one query: its results, or its error."""

    index: int
    results: list[SearchHit] | None = None
    truncated: bool | None = None
    error: ItemError | None = None


class SearchBatchAnswer(BaseModel):
    model_config = ConfigDict(protected_namespaces=())
    answers: list[SearchBatchItem]
    release: str
    model_fingerprint: str


class ItemAnswer(BaseModel):
    id: str
    payload: dict[str, Any]
    width: int | None = Field(description="pixels, upright; null for an item that was put as a vector")
    height: int | None
    release: str


class FieldValue(BaseModel):
    value: str | bool | int | float
    count: int = Field(description="items that have it")


class PayloadField(BaseModel):
    """A field of the payloads, as a filter's `key` names it: what lies in an object is `a.b`."""

    key: str
    kind: Literal["text", "number", "bool", "mixed"]
    filled: int = Field(description="items that have a value")
    distinct: int
    more_distinct: bool = Field(description="there are more distinct values than were told apart")
    values: list[FieldValue] = Field(
        description="up to 50 values that repeat, most common first; none where nearly every item has its own"
    )
    minimum: int | float | None = Field(None, description="of the numbers in the field")
    maximum: int | float | None = None


class FieldsAnswer(BaseModel):
    """What there is to filter by, with what was put and deleted since the release was built.

    What is deleted may still tell in the kind and the range of a field, until the next release.
    """

    release: str
    items: int
    counted: int = Field(description="items that were looked at: of very many only some, evenly spread")
    fields: list[PayloadField]
