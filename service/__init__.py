"""HTTP service over a Release: embeddings and image-text search.

    app        composition: settings in, an ASGI application out
    server     uvicorn with our signals
    serving    the release that is served, and how another takes its place
    settings   the one reader of the environment
    errors     what can go wrong, and its status

What a request passes is in edge/, access/, routes/ and wire/; what embeds in decoding/ and device/; what finds
and changes in search/ and live/; what is seen from outside in watch/; the search page in web/.

Knows the reading half of `index` and the `encoders`; never training.
"""

from encoders.extras import require_extra

require_extra("service", packages=("fastapi", "uvicorn", "python_multipart", "prometheus_client", "orjson"))
