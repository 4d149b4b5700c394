"""HTTP service over a Release: embeddings and image-text search.

Knows the reading half of `index` and the `encoders`; never training.
"""

from encoders.extras import require_extra

require_extra("service", packages=("fastapi", "uvicorn", "python_multipart", "prometheus_client", "orjson"))
