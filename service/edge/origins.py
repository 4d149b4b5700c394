"""Which host names the service answers to, and which other sites' pages may call it from a browser.

By default no other site: CORS is closed, and what a browser sends across sites without asking first (a form,
a POST without a body) is refused too. Knows nothing of keys or routes.
"""

import ipaddress

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware

from service.errors import Forbidden
from service.settings import Settings

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_OTHER_SITES = frozenset({"cross-site", "same-site"})
_PREFLIGHT_SECONDS = 600
_ASKED_HEADERS = (
    "authorization",
    "x-api-key",
    "content-type",
    "x-request-id",
    "x-deadline-ms",
    "traceparent",
    "idempotency-key",
)
_TOLD_HEADERS = (
    "idempotency-replayed",
    "x-request-id",
    "server-timing",
    "retry-after",
    "www-authenticate",
    "x-dim",
    "x-model-fingerprint",
    "x-item-errors",
)


class Origins:
    """The rules of one service."""

    def __init__(self, settings: Settings) -> None:
        self._origins = frozenset(settings.cors_origins)
        self._hosts = frozenset(host.lower() for host in settings.allowed_hosts)
        self._local_only = not settings.keys_file and is_loopback(settings.host)

    def check(self, method: str, headers: Headers) -> None:
        """Raises Forbidden."""
        host = host_name(headers.get("host", ""))
        if not self._answers_to(host):
            raise Forbidden(
                f"this service does not answer to the host name {host[:80]!r}: "
                "name it in allowed_hosts (TWINLENS_ALLOWED_HOSTS) if it should",
                code="host_not_allowed",
            )
        origin = headers.get("origin", "")
        crosses = method not in _READS and headers.get("sec-fetch-site") in _OTHER_SITES
        if crosses and origin not in self._origins:
            raise Forbidden(
                f"a page of {origin[:80] or 'another site'} may not call this service: "
                "name it in cors_origins (TWINLENS_CORS_ORIGINS) if it should",
                code="cross_site",
            )

    def _answers_to(self, host: str) -> bool:
        if self._hosts:
            return host in self._hosts
        # DNS rebinding: a page of evil.example makes that name point to 127.0.0.1, and the browser thinks the
        # service is the page's own. Only a name that a stranger can register works for it, so one with dots.
        return not self._local_only or _cannot_be_registered(host)


def allow_origins(app: Starlette, settings: Settings) -> None:
    """Let exactly these origins' pages call and read; without credentials: keys travel in a header."""
    if not settings.cors_origins:
        return
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
        allow_headers=_ASKED_HEADERS,
        expose_headers=_TOLD_HEADERS,
        allow_credentials=False,
        max_age=_PREFLIGHT_SECONDS,
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a socket bound to `host`."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def host_name(value: str) -> str:
    """The name in a Host header, lower case: without its port, without the brackets of an IPv6 address."""
    if value.startswith("["):
        return value[1:].partition("]")[0].lower()
    return value.partition(":")[0].rstrip(".").lower()


def _cannot_be_registered(host: str) -> bool:
    return "." not in host or host.endswith(".localhost") or _is_address(host)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
