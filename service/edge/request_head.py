"""What the head of a request must say, so that no two who read it understand two requests (RFC 9110, RFC 9112).

A proxy in front may read a head otherwise than the parser here does, and what one takes for a body the other
may take for the next request. What leaves room for that is refused, and the connection closed.
"""

import re

from starlette.types import Scope

from service.errors import InvalidHttp, UnsupportedMediaType

_HOST = re.compile(rb"([A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]{0,5})?")


def check_head(scope: Scope) -> None:
    """Raises InvalidHttp, or UnsupportedMediaType for a body that is compressed."""
    found: dict[bytes, list[bytes]] = {b"host": [], b"transfer-encoding": [], b"content-encoding": []}
    for name, value in scope["headers"]:
        if name in found:
            found[name].append(value)
    version = scope["http_version"]
    _check_host(found[b"host"], version=version)
    if transfer := found[b"transfer-encoding"]:
        _check_transfer(b", ".join(transfer), version=version)
    encoding = b", ".join(found[b"content-encoding"]).strip()
    if encoding and encoding.lower() != b"identity":
        raise UnsupportedMediaType(
            f"content-encoding {encoding[:40].decode('latin-1')!r} is not taken: send the body as it is"
        )


def _check_host(hosts: list[bytes], *, version: str) -> None:
    if len(hosts) > 1:
        raise InvalidHttp(f"the request has {len(hosts)} host headers: send one")
    if not hosts and version != "1.0":
        raise InvalidHttp(f"HTTP/{version} needs a host header: send the name or address that you ask")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise InvalidHttp(
            f"host {hosts[0][:80].decode('latin-1')!r} is no name or address with a port or without"
        )


def _check_transfer(told: bytes, *, version: str) -> None:
    if version == "1.0":
        raise InvalidHttp("HTTP/1.0 has no transfer-encoding: send content-length, or use HTTP/1.1")
    if told.strip().lower() != b"chunked":
        raise InvalidHttp(
            f"transfer-encoding {told[:40].decode('latin-1')!r} is not taken: "
            "send chunked alone, or content-length"
        )
