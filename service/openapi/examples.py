"""Examples of requests and answers for the API's description; requests are true of the release that is served.

Requests are built anew for each release: their fingerprints, vectors and ids can be sent as they stand.
Answers show the shape. Knows wire forms and what is served; nothing of HTTP or of how OpenAPI is laid out.
"""

from collections.abc import Mapping
from typing import Any

from service.state import ServingState

# 16×16 pixels, left half cream, right half red: small enough to read past in a document.
IMAGE = (
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQAQMAAAAlPW0iAAAABlBMVEX68ObIHh4bvAhNAAAAEElEQVR42mNg+M/EwEA8AgAw0gEe0P1L"
    "1QAAAABJRU5ErkJggg=="
)
IMAGE_URI = f"data:image/png;base64,{IMAGE}"
NEW_ITEM = "examples/cream and red.png"
Examples = Mapping[str, Mapping[str, Any]]  # operation id -> what it shows -> JSON body

_FILTER = {"must_not": [{"key": "category", "match": {"value": "vehicles"}}]}
_RELEASE = "20261123T071500Z-3f9ac1"
_FINGERPRINT = "3f9ac1d4e2b7a6508c1f9b3e7d5a2c4f6e8091b3d5f7a9c1e3b5d7f9a1c3e5b7"
_HIT = {
    "id": "animals/dog_1.webp",
    "score": 0.312,
    "relevance": 0.94,
    "payload": {"title": "Dog", "category": "animals"},
}
_TEMPLATES = ["{}", "a {}", "a photo of a {}"]
_TOLD = {
    "verdict": "match",
    "good_match": True,
    "levels": {"likely": 0.4, "perhaps": 0.05},
    "templates": _TEMPLATES,
    "unknown_words": None,
    "truncated": False,
}
_SEARCH = {
    "results": [_HIT],
    "release": _RELEASE,
    "model_fingerprint": _FINGERPRINT,
    **_TOLD,
}
_UNREADABLE = {"code": "undecodable_image", "message": "not an image in a format that is read here"}


def request_examples(state: ServingState, item: str | None) -> Examples:
    """JSON bodies that the release served just now answers with 200; `item`: an id of it that may be shown."""
    encoder = state.encoder
    vector = {"vector": [1.0] + [0.0] * (encoder.dim - 1), "model_fingerprint": encoder.fingerprint}
    asked: dict[str, dict[str, Any]] = {
        "embed_image": {"images as base64 or data URIs": {"images": [IMAGE, IMAGE_URI], "dimensions": 8}},
        "embed_text": {
            "texts": {"texts": ["a dog on a beach", "a red car"], "truncate": "end"},
            "one text, as little-endian float32 in base64": {"texts": "a red car", "encoding_format": "base64"},
        },
        "embeddings": {
            "as the OpenAI client sends it": {
                "model": encoder.name,
                "input": ["a dog on a beach"],
                "encoding_format": "base64",
            },
            "texts and images mixed": {"input": [{"text": "a dog"}, {"image": IMAGE_URI}]},
            "images": {"input": IMAGE_URI, "modality": "image"},
        },
        "search_text": {
            "images for a text": {"query": "a dog on a beach", "k": 5},
            "filtered": {"query": "a red car", "k": 5, "offset": 5, "filter": _FILTER, "score_threshold": 0.1},
        },
        "search_image": {"texts for an image": {"image": IMAGE_URI, "in": "texts", "k": 5}},
        "search_vector": {"a vector of this encoder": {**vector, "k": 5}},
    }
    several: list[dict[str, Any]] = [{"text": "a dog on a beach"}, {"image": IMAGE_URI, "in": "texts"}]
    if item is not None:
        asked["search_item"] = {"more like this one": {"id": item, "k": 5, "with_payload": False}}
        several.append({"id": item, "filter": _FILTER})
    asked["search_batch"] = {"a text, an image and an item": {"queries": several, "k": 5}}
    return asked


def change_examples(state: ServingState, item: str | None) -> Examples:
    """The same for live changes."""
    encoder = state.encoder
    vector = {"vector": [1.0] + [0.0] * (encoder.dim - 1), "model_fingerprint": encoder.fingerprint}
    payload = {"title": "cream and red", "year": 2026}
    several: dict[str, Any] = {"put items": {"put": [{"id": NEW_ITEM, "image": IMAGE_URI, "payload": payload}]}}
    if item is not None:
        several["delete items"] = {"delete": [item]}
    return {
        "put_item": {
            "an image": {"image": IMAGE_URI, "payload": payload},
            "a vector of this encoder": {**vector, "payload": payload, "texts": ["cream and red"]},
        },
        "change_items": several,
    }


def path_examples(state: ServingState, item: str | None) -> Mapping[str, str]:
    """The path parameter of an operation, by its id."""
    examples = {"put_item": NEW_ITEM, "get_model": state.encoder.name}
    if item is not None:
        examples |= dict.fromkeys(("get_item", "get_image", "delete_item"), item)
    return examples


_ITEM = {"id": "animals/dog_1.webp", "sequence": 17, "release": _RELEASE, "model_fingerprint": _FINGERPRINT}
_MODEL = {
    "id": "lite0-minilm",
    "object": "model",
    "created": 1795417200,
    "owned_by": "twinlens",
    "model_fingerprint": _FINGERPRINT,
    "dim": 512,
    "short_queries": {
        "templates": ["{}", "a {}", "a photo of a {}"],
        "most_words": 4,
        "remembered_phrases": 1000,
    },
}

ANSWERS: Mapping[str, Any] = {
    "embed_image": {
        "model": "lite0-minilm",
        "model_fingerprint": _FINGERPRINT,
        "dim": 2,
        "data": [
            {"index": 0, "embedding": [0.6, 0.8], "truncated": False},
            {"index": 1, "error": _UNREADABLE},
        ],
    },
    "embed_text": {
        "model": "lite0-minilm",
        "model_fingerprint": _FINGERPRINT,
        "dim": 2,
        "data": [{"index": 0, "embedding": [0.6, 0.8], "truncated": False}],
    },
    "embeddings": {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}],
        "model": "lite0-minilm",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    },
    "search_text": _SEARCH,
    "search_image": _SEARCH,
    "search_vector": _SEARCH,
    "search_item": _SEARCH,
    "search_batch": {
        "answers": [
            {"index": 0, "results": [_HIT], **_TOLD},
            {"index": 1, "error": {"code": "unknown_item", "message": "no item has the id 'animals/gnu.webp'"}},
        ],
        "release": _RELEASE,
        "model_fingerprint": _FINGERPRINT,
    },
    "put_item": _ITEM,
    "delete_item": _ITEM,
    "change_items": {
        "put": [{"id": "animals/dog_1.webp", "sequence": 17}],
        "delete": [
            {"id": "gnu.webp", "error": {"code": "unknown_item", "message": "no item has the id 'gnu.webp'"}}
        ],
        "release": _RELEASE,
        "model_fingerprint": _FINGERPRINT,
    },
    "get_item": {
        "id": "animals/dog_1.webp",
        "payload": {"title": "Dog", "category": "animals"},
        "width": 640,
        "height": 480,
        "release": _RELEASE,
    },
    "list_models": {"object": "list", "data": [_MODEL]},
    "get_model": _MODEL,
    "reload": {"release": _RELEASE, "swapped": True},
    "healthz": {"status": "alive"},
    "readyz": {"status": "ready", "release": _RELEASE},
    "release": {
        "release": _RELEASE,
        "created": "2026-11-23T07:15:00+00:00",
        "loaded": "2026-11-23T07:20:31+00:00",
        "model": "lite0-minilm",
        "model_fingerprint": _FINGERPRINT,
        "dim": 512,
        "device": "cpu",
        "precision": "fp32",
        "engine": "openvino",
        "compiling": False,
        "context_length": 64,
        "counts": {"images": 1793, "texts": 1790, "failed": 0, "texts_cut": 0, "skipped": 0, "reused": 0},
        "live": None,
        "loading": None,
        "refused": None,
    },
    "fields": {
        "release": _RELEASE,
        "items": 1793,
        "counted": 1793,
        "fields": [
            {
                "key": "category",
                "kind": "text",
                "filled": 1793,
                "distinct": 2,
                "more_distinct": False,
                "values": [{"value": "animals", "count": 1000}, {"value": "vehicles", "count": 793}],
                "minimum": None,
                "maximum": None,
            }
        ],
    },
    "list_duplicates": {
        "results": [
            {
                "id": "animals/dog_1.webp",
                "duplicates": [{"id": "animals/dog_2.webp", "score": 0.987, "identical": False}],
                "count": 1,
            }
        ],
        "scanned": 1793,
        "total": 1793,
        "next": None,
        "release": _RELEASE,
    },
    "drift": {
        "release": _RELEASE,
        "model_fingerprint": _FINGERPRINT,
        "verdict": "as proven",
        "window_queries": 2000,
        "least_queries": 50,
        "reports": [
            {
                "subject": "text_queries",
                "seen": 812,
                "reference": "its bank of texts",
                "verdict": "as proven",
                "why": "nothing has moved",
                "measures": [
                    {
                        "name": "cut_texts",
                        "value": 0.0,
                        "reference": 0.0,
                        "standard_errors": 0.0,
                        "moved_at": 0.05,
                        "far_at": 0.25,
                        "verdict": "as proven",
                        "why": "hardly a text is longer than the encoder reads",
                    }
                ],
                "relevance_histogram": [3, 4, 6, 9, 14, 31, 80, 140, 225, 300],
            }
        ],
        "privacy": "sums are kept of queries, never a query",
    },
}
