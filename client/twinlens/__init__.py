"""A client of Twinlens: `Client`, and `AsyncClient` with the same methods to await.

Knows the wire only: nothing of how the service is built.
"""

from twinlens.answers import (
    BatchAnswer,
    Change,
    ChangeAnswer,
    Embedding,
    Embeddings,
    Hit,
    Item,
    ItemError,
    Readiness,
    Release,
    SearchAnswer,
    SearchResults,
)
from twinlens.client import AsyncClient, Client
from twinlens.errors import (
    BadAnswer,
    ConnectionFailed,
    DeadlineExceeded,
    Forbidden,
    InvalidRequest,
    ItemFailed,
    NotFound,
    Overloaded,
    ServerFailed,
    TooLarge,
    TwinlensError,
    Unauthorized,
    Unavailable,
    WrongModel,
)
from twinlens.queries import NewItem, Query

__all__ = [
    "AsyncClient",
    "BadAnswer",
    "BatchAnswer",
    "Change",
    "ChangeAnswer",
    "Client",
    "ConnectionFailed",
    "DeadlineExceeded",
    "Embedding",
    "Embeddings",
    "Forbidden",
    "Hit",
    "InvalidRequest",
    "Item",
    "ItemError",
    "ItemFailed",
    "NewItem",
    "NotFound",
    "Overloaded",
    "Query",
    "Readiness",
    "Release",
    "SearchAnswer",
    "SearchResults",
    "ServerFailed",
    "TooLarge",
    "TwinlensError",
    "Unauthorized",
    "Unavailable",
    "WrongModel",
]
