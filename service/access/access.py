"""Who calls, and how much of the service each caller may have at once.

Reads keys from a request's headers and the file of keys anew when it changes; counts what each caller has
running. Belongs to the event loop.
"""

import asyncio
import logging
import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import Scope as RequestScope

from service.access.keys import Key, Keyring, Scope, others_may_write, read_keys
from service.access.origins import Origins, is_loopback
from service.access.passes import COOKIE, Passes
from service.errors import Forbidden, KeyFileError, KeyLimit, Unauthorized
from service.settings import Settings

logger = logging.getLogger(__name__)
LOOK_SECONDS = 1.0
MAX_RETRY_SECONDS = 30
# Probes, the page's own files (which ask for the key), and the description of the API: nothing of the gallery.
PROBES = frozenset({"/healthz", "/readyz"})
OPEN_PATHS = PROBES | {"/", "/docs", "/openapi.json"}
OPEN_FOLDER = "/static/"
IMAGES = "/images/"


@dataclass(eq=False, slots=True)
class Caller:
    """Whoever shares one allowance: a key, or (where the settings say so) an address."""

    name: str  # of the key, or the address; empty: nobody in particular
    key: Key | None = None
    is_free: bool = False  # to do everything without a key
    limit: int = 0  # requests at once; 0: any
    running: int = 0
    seconds: float = 0.0  # one request takes, moving average

    def allows(self, scope: Scope) -> bool:
        return self.key.allows(scope) if self.key else self.is_free


class Access:
    """Names the caller of each request, or refuses it."""

    def __init__(self, settings: Settings) -> None:
        """Raises KeyFileError when there is a file of keys that cannot be used."""
        self._settings = settings
        self.origins = Origins(settings)
        self.passes = Passes(settings.image_secret.get_secret_value() if settings.image_secret else None)
        self._seen = _look(settings.keys_file) if settings.keys_file else None
        self._keyring = _load(settings.keys_file) if settings.keys_file else None
        self._callers: dict[str, Caller] = {}  # those with something running, and keys seen
        self._nobody = Caller("", is_free=self._keyring is None)
        if self._keyring is None and not is_loopback(settings.host):
            logger.warning(
                "listening on %s without API keys: whoever reaches it may use and change everything; "
                "set keys_file (TWINLENS_KEYS_FILE), or let a proxy guard it; to answer to a name with dots, "
                "name it in allowed_hosts (TWINLENS_ALLOWED_HOSTS)",
                settings.host,
            )

    @property
    def has_keys(self) -> bool:
        """Whether callers must show a key."""
        return self._keyring is not None

    def enter(self, scope: RequestScope, headers: Headers) -> Caller:
        """The caller, with one more request running. Raises Forbidden, Unauthorized or KeyLimit."""
        path = scope["path"].removeprefix(scope["root_path"])
        if path not in PROBES:  # which balancers send to an address
            self.origins.check(scope["method"], headers, scheme=scope["scheme"])
        caller = self._nobody if self._is_open(path) else self._caller(scope, path, headers)
        if caller.limit and caller.running >= caller.limit:
            retry_after = max(1, min(MAX_RETRY_SECONDS, math.ceil(caller.seconds)))
            raise KeyLimit(
                f"{caller.name} has {caller.running} requests running and may have {caller.limit}: "
                f"one of them takes about {caller.seconds:.1f} s, so send this again in {retry_after} s",
                retry_after_seconds=retry_after,
            )
        caller.running += 1
        return caller

    def leave(self, caller: Caller, *, seconds: float) -> None:
        """One request of a caller is over, after so many seconds."""
        caller.running -= 1
        caller.seconds += (seconds - caller.seconds) * (0.2 if caller.seconds else 1.0)
        if caller.key is None and not caller.running:
            self._callers.pop(caller.name, None)  # addresses come and go

    def find(self, headers: Headers) -> Key:
        """The key that was sent. Raises Unauthorized."""
        secret = _sent(headers)
        if secret is None:
            raise Unauthorized(
                "a key is needed: send it as `Authorization: Bearer <key>` or `x-api-key: <key>`",
                code="missing_key",
            )
        key = self._keyring.find(secret) if self._keyring else None
        if key is None:
            raise Unauthorized("the key that was sent is not known here, or no more", code="wrong_key")
        return _in_time(key)

    async def watch(self) -> None:
        """Take up changes of the file, for ever; a file that cannot be used leaves the keys as they are."""
        path = self._settings.keys_file
        if path is None:
            return
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            seen = await asyncio.to_thread(_look, path)
            if seen == self._seen:
                continue
            self._seen = seen
            try:
                self._keyring = await asyncio.to_thread(_load, path)
            except KeyFileError as error:
                logger.error("the keys stay as they were: %s", error)
            else:
                self._callers = {name: each for name, each in self._callers.items() if each.running}
                logger.info("%s has %d keys now", path, len(self._keyring.keys))

    def _is_open(self, path: str) -> bool:
        return (
            path in OPEN_PATHS
            or path.startswith(OPEN_FOLDER)
            or (path == "/metrics" and self._settings.metrics_without_key)
        )

    def _caller(self, scope: RequestScope, path: str, headers: Headers) -> Caller:
        if self._keyring is None:
            return self._of_address(scope)
        reads_image = scope["method"] == "GET" and path.startswith(IMAGES)
        if reads_image and _sent(headers) is None and (key := self._of_pass(headers)):
            return Caller(key.name, key)  # a page shows thirty at a time: they are not counted
        return self._of_key(self.find(headers))

    def _of_key(self, key: Key) -> Caller:
        caller = self._callers.setdefault(key.sha256, Caller(key.name))
        if caller.key is not key:  # new, or from another reading of the file, which may say otherwise
            caller.name, caller.key = key.name, key
            caller.limit = key.max_concurrent or self._settings.key_max_concurrent
        return caller

    def _of_address(self, scope: RequestScope) -> Caller:
        limit = self._settings.address_max_concurrent
        if not limit:
            return self._nobody
        address = scope["client"][0] if scope.get("client") else "unknown"
        return self._callers.setdefault(address, Caller(address, is_free=True, limit=limit))

    def _of_pass(self, headers: Headers) -> Key | None:
        value = _cookie(headers.get("cookie", ""))
        key = self.passes.find(value, self._keyring, now=time.time()) if value and self._keyring else None
        return _in_time(key) if key else None


def refuse_without(caller: Caller, scope: Scope) -> None:
    """Raises Forbidden when the caller's key does not have the scope."""
    if not caller.allows(scope):
        raise Forbidden(
            f"the key {caller.name!r} may not do this: it takes the scope {scope!r}", code="missing_scope"
        )


def _sent(headers: Headers) -> str | None:
    """The key of a request; `Authorization` wins."""
    kind, _, value = headers.get("authorization", "").strip().partition(" ")
    if kind.lower() == "bearer" and value.strip():
        return value.strip()
    return headers.get("x-api-key", "").strip() or None


def _cookie(header: str) -> str:
    """Find the pass in a Cookie header. A quoted one is none of ours: Python's own parser of cookies takes time
    to unquote that grows with the square of the quotes."""
    for part in header.split(";"):
        name, _, value = part.partition("=")
        if name.strip() == COOKIE:
            return value.strip()
    return ""


def _in_time(key: Key) -> Key:
    if key.expired(datetime.now(UTC)):
        raise Unauthorized(f"the key {key.name!r} expired on {key.expires:%Y-%m-%d}", code="expired_key")
    return key


def _look(path: Path) -> tuple[int, int, int] | None:
    """What tells one state of the file from another, its mode and owner too; None when it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ctime_ns, found.st_size, found.st_ino


def _load(path: Path) -> Keyring:
    keyring = Keyring.of(read_keys(path))
    if others_may_write(path):
        logger.warning("others may write to %s, and so make keys: chmod 600 it", path)
    return keyring
