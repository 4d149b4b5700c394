"""The wire models of live changes."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from service.wire.schemas import ItemError, Strings, Vector

MAX_CHANGES = 1000  # in one request
MAX_TEXTS = 64  # of one item
MAX_TEXT_CHARACTERS = 1 << 20  # of one text, at all: `max_text_characters` is asked for when it is embedded
ItemText = Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS)]


class PutOptions(BaseModel):
    """What may go with an image."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    payload: dict[str, Any] = Field(default_factory=dict, description="JSON: shown with hits, and filtered by")
    texts: Annotated[list[ItemText], Field(fail_fast=True)] | None = Field(
        None,
        max_length=MAX_TEXTS,
        description="found with in: texts; unset: the payload's captions, caption or title",
    )


class PutItemRequest(PutOptions):
    """Exactly one of an image and a vector."""

    model_config = ConfigDict(protected_namespaces=())
    image: str | None = Field(None, min_length=1, description="base64 or data: URI; URLs are refused")
    vector: Vector | None = Field(None, min_length=1, description="of the encoder that is served")
    model_fingerprint: str | None = Field(None, description="of the encoder that made the vector")


class PutOneOfMany(PutItemRequest):
    id: str


# Read one by one: one bad item never fails the others.
PutOne = Annotated[dict[str, Any], WithJsonSchema({"$ref": "#/components/schemas/PutOneOfMany"})]


class ChangeItemsRequest(BaseModel):
    """Items to put, each as PutItemRequest with its id; and ids to delete."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    put: Annotated[list[PutOne], Field(fail_fast=True)] = Field(default_factory=list, max_length=MAX_CHANGES)
    delete: Strings = Field(default_factory=list, max_length=MAX_CHANGES)


class Duplicate(BaseModel):
    id: str
    score: float = Field(description="cosine")
    identical: bool = Field(description="the files are the same to the byte")


class DuplicatesOfItem(BaseModel):
    id: str
    duplicates: list[Duplicate] = Field(description="best first, at most 100; each pair is named once")
    count: int = Field(description="how many there are")


class DuplicatesAnswer(BaseModel):
    results: list[DuplicatesOfItem]
    scanned: int = Field(description="items that were compared with all behind them, from the start")
    total: int
    next: str | None = Field(description="send it as cursor for what follows; null at the end")
    release: str


class ChangedItem(BaseModel):
    """`sequence` or `error`."""

    id: str
    sequence: int | None = Field(None, description="rises with every change; a release says which are inside")
    error: ItemError | None = None


class ChangeAnswer(BaseModel):
    """Durable and searchable by the time it is sent."""

    model_config = ConfigDict(protected_namespaces=())
    id: str
    sequence: int
    release: str
    model_fingerprint: str


class ChangeItemsAnswer(BaseModel):
    model_config = ConfigDict(protected_namespaces=())
    put: list[ChangedItem]
    delete: list[ChangedItem]
    release: str
    model_fingerprint: str
