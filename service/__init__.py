"""HTTP service over a Release: embeddings and image-text search.

    command    `python -m service`; signals: from its first moment on; preflight: what the machine gives it
    app        composition: settings in, an ASGI application out
    server     uvicorn with our signals
    serving    what is served just now, and how another release takes its place
    state      one release with its encoder, as a request sees it from beginning to end
    load_failure   a release that was not taken: which, why; backoff: when it is tried again
    gauges     what is read of the running service whenever metrics are
    reports    what a bundle brings along about itself
    settings   the one reader of the environment; options: each as one of the command
    control_groups    what memory the process may have
    errors     what can go wrong, and its status

A request goes through these rooms, from the socket down; each one's `__init__` is its map:

    edge/      what holds for every request: sockets, bodies, deadlines, origins
    access/    who calls: keys, and shares of the service
    routes/    one module a part of the API: parse, call, answer
    wire/      what requests and answers look like
    decoding/  images to pixels, in processes of their own
    device/    pixels and texts to vectors, in batches across requests
    search/    a vector to hits: filters, order, relevance
    live/      items put and deleted while serving
    drift/     how far what comes lies from what the encoder was proven on
    openapi/   the API's own description
    watch/     what is seen from outside: metrics, logs, traces
    web/       the search page

"""

from typing import TYPE_CHECKING

from encoders.extras import require_extra
from encoders.lazy import exports

if TYPE_CHECKING:
    from service.app import create_app
    from service.settings import Settings

__all__ = ["Settings", "create_app"]

require_extra(
    "service",
    packages=("fastapi", "uvicorn", "python_multipart", "prometheus_client", "orjson", "fastapi_swagger"),
)

__getattr__ = exports(__name__, {"Settings": "service.settings", "create_app": "service.app"})
