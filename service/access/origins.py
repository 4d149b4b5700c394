"""Which host names the service answers to, and which other sites' pages may call it from a browser.

By default no other site: CORS is closed, and what a browser sends across sites without asking first (a form,
a POST without a body) is refused too. To plain HTTP at another address than this machine's own, browsers do not
say from which site they send (`sec-fetch-site`): there the page's origin is compared with the host it asks.
"""

import ipaddress
from collections.abc import Iterable

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware

from service.errors import Forbidden, UnsupportedMediaType
from service.settings import Settings

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITE = frozenset({"same-origin", "none"})  # none: the user's own doing, as a bookmark
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_UNREGISTRABLE = (".localhost", ".local", ".internal", ".home.arpa")  # RFC 6761, 6762, 8375; ICANN 2024
_SIMPLE_TYPES = frozenset({"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})
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
# That no page sends to another site before the browser has asked whether it may.
_CUSTOM_HEADERS = (
    "authorization",
    "x-api-key",
    "x-request-id",
    "x-deadline-ms",
    "x-requested-with",
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
        self._is_open = not settings.keys_file

    def check(self, method: str, headers: Headers, *, scheme: str) -> None:
        """`scheme`: http or https, as far as is known where a proxy stands in front. Raises Forbidden."""
        host = host_name(headers.get("host", ""))
        if not self._answers_to(host):
            raise Forbidden(
                f"this service does not answer to the host name {host[:80]!r}: "
                "name it in allowed_hosts (TWINLENS_ALLOWED_HOSTS) if it should",
                code="host_not_allowed",
            )
        if method in _READS or _is_own_site(headers, scheme=scheme):
            return
        origin = headers.get("origin", "")
        if origin not in self._origins:
            raise Forbidden(
                f"a page of {origin[:80] or 'another site'} may not call this service: "
                "name it in cors_origins (TWINLENS_CORS_ORIGINS) if it should",
                code="cross_site",
            )

    def _answers_to(self, host: str) -> bool:
        if self._hosts:
            return host in self._hosts
        # DNS rebinding: a page of evil.example makes that name point to this machine, and the browser thinks
        # the service is the page's own. Only a name that a stranger can register does it, so one with dots.
        return not self._is_open or _cannot_be_registered(host)


def refuse_unasked(headers: Headers) -> None:
    """Refuse a POST that any site's page could have sent without the browser asking first.

    Raises UnsupportedMediaType or Forbidden.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in _SIMPLE_TYPES:
        raise UnsupportedMediaType(
            f"content-type {kind!r} is not taken here: send content-type: application/json"
        )
    from_page = "origin" in headers or "referer" in headers
    if from_page and kind != "application/json" and not any(name in headers for name in _CUSTOM_HEADERS):
        raise Forbidden(
            "a page's request that changes something needs content-type: application/json, "
            f"or one of the headers {', '.join(_CUSTOM_HEADERS)}",
            code="cross_site",
        )


def _is_own_site(headers: Headers, *, scheme: str) -> bool:
    """Whether a page of this very service sends it, or no page at all."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in _OWN_SITE
    origin = headers.get("origin")
    if origin is None:
        return True
    # Whoever can send x-forwarded-host is a proxy, or no page: a page would have to be allowed to first.
    hosts = [headers.get("host", ""), *headers.get("x-forwarded-host", "").split(",")]
    return is_same_origin(origin, hosts, scheme=scheme)


def is_same_origin(origin: str, hosts: Iterable[str], *, scheme: str) -> bool:
    """Whether an Origin header names one of these hosts, as Host headers name them.

    A proxy that takes TLS off may not tell: an origin of https is then the service's own for all it knows. An
    origin of http is not where the service is known to be asked over https.
    """
    page_scheme, _, authority = origin.lower().partition("://")
    port = _DEFAULT_PORTS.get(page_scheme)
    if port is None or not authority or (page_scheme, scheme) == ("http", "https"):
        return False
    return authority.removesuffix(port) in {host.strip().lower().removesuffix(port) for host in hosts}


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
    return "." not in host or host.endswith(_UNREGISTRABLE) or _is_address(host)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
