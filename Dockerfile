# The service and the batch job in one image: `python -m service` unless told otherwise.
# Needs no BuildKit. Runs as a user without rights, and with a read-only root.

# Named by its digest, the base is the same one each time: docs/security.md says how to find a digest.
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}

# Where PyTorch's CPU builds lie (pytorch.org names the address): an image of about 2 GB instead of 8, without CUDA.
ARG TORCH_INDEX_URL=""

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

WORKDIR /app

# The packages change seldom and are large, the code changes often and is small: this order keeps the former cached.
COPY requirements/install.py requirements/service.txt requirements/
RUN python requirements/install.py service --torch-index "$TORCH_INDEX_URL"

# A named volume takes its owner from the folder it covers, hence /data/releases and /data/keys.
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin twinlens \
    && install -d -o twinlens -g twinlens /data /data/releases /data/keys

COPY encoders/ encoders/
COPY index/ index/
COPY service/ service/
RUN python -m compileall -q encoders index service

USER twinlens
ENV HOME=/tmp \
    TWINLENS_HOST=0.0.0.0 \
    TWINLENS_PORT=8000 \
    TWINLENS_RELEASES=/data/releases
EXPOSE 8000
VOLUME /data/releases

HEALTHCHECK --interval=5s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['TWINLENS_PORT'] + '/readyz', timeout=4)"]

ENTRYPOINT ["python", "-m"]
CMD ["service"]
