"""The wire models of live changes. Knows nothing of how they are made."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.schemas import ItemError

MAX_CHANGES = 1000  # in one request
MAX_TEXTS = 64  # of one item


class PutOptions(BaseModel):
    """What may go with a picture."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    payload: dict[str, Any] = Field(default_factory=dict, description="JSON: shown with hits, and filtered by")
    texts: list[str] | None = Field(
        None,
        max_length=MAX_TEXTS,
        description="found with in: texts; unset: the payload's captions, caption or title",
    )


class PutItemRequest(PutOptions):
    """Exactly one of a picture and a vector."""

    model_config = ConfigDict(
        protected_namespaces=(),
        json_schema_extra={
            "examples": [
                {"image": "data:image/png;base64,iVBORw0KGgo…", "payload": {"title": "a dog", "year": 2026}},
                {"vector": [0.1, -0.2], "model_fingerprint": "3f9a…", "payload": {"title": "a dog"}},
            ]
        },
    )
    image: str | None = Field(None, min_length=1, description="base64 or data: URI; URLs are refused")
    vector: list[float] | None = Field(None, min_length=1, description="of the encoder that is served")
    model_fingerprint: str | None = Field(None, description="of the encoder that made the vector")


class PutOneOfMany(PutItemRequest):
    id: str


class ChangeItemsRequest(BaseModel):
    """Items to put, each as PutItemRequest with its id; and ids to delete."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "put": [{"id": "animals/dog.png", "image": "data:image/png;base64,iVBORw0KGgo…"}],
                    "delete": ["animals/cat.png"],
                }
            ]
        },
    )
    put: list[dict[str, Any]] = Field(default_factory=list, max_length=MAX_CHANGES)
    delete: list[str] = Field(default_factory=list, max_length=MAX_CHANGES)


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
