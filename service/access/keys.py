"""API keys: made, kept as digests in a file, found again by what a caller sends.

The file is JSON, `{"keys": [{"name", "scopes", "sha256", "max_concurrent", "expires", "created"}]}`. It holds
no key: only the SHA-256 of each. A slow hash (scrypt) protects secrets that people choose, because those can be
guessed; a key here is 256 random bits, and nobody guesses one of 2^256, however fast the hash. A fast one
keeps the check off the list of things a flood of wrong keys could make expensive.
"""

import fcntl
import hashlib
import hmac
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from encoders.folders import sync
from service.errors import KeyFileError

Scope = Literal["read", "write"]
PREFIX = "tl_"  # so that a leaked key is recognised, by people and by scanners of repositories
KEY_BYTES = 32


class Key(BaseModel):
    """What is known of a key; the key itself is not. `write` includes `read`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    scopes: tuple[Scope, ...] = Field(min_length=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False)
    max_concurrent: int | None = Field(None, ge=1, description="requests at once; the service's own when unset")
    expires: AwareDatetime | None = None
    created: AwareDatetime | None = None

    def allows(self, scope: Scope) -> bool:
        return scope in self.scopes or "write" in self.scopes

    def expired(self, now: datetime) -> bool:
        return self.expires is not None and now >= self.expires


class _KeyFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[Key, ...] = ()

    @model_validator(mode="after")
    def _each_is_there_once(self) -> Self:
        for field in ("name", "sha256"):
            values = [getattr(key, field) for key in self.keys]
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"{field} {twice[0]!r} is there more than once")
        return self


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys of one reading of the file."""

    keys: Mapping[bytes, Key]  # by digest

    @classmethod
    def of(cls, keys: tuple[Key, ...]) -> "Keyring":
        return cls({bytes.fromhex(key.sha256): key for key in keys})

    def find(self, secret: str) -> Key | None:
        """The key whose digest is that of `secret`, expired or not.

        Looking up the digest tells a watcher of the clock nothing about a key: to learn a digest's bytes one
        by one, it would have to choose inputs by their SHA-256. The comparison is constant-time all the same.
        """
        digest = digest_of(secret)
        found = self.keys.get(digest)
        if found is None or not hmac.compare_digest(bytes.fromhex(found.sha256), digest):
            return None
        return found

    def named(self, name: str) -> Key | None:
        return next((key for key in self.keys.values() if key.name == name), None)


def digest_of(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def read_keys(path: Path) -> tuple[Key, ...]:
    """Raises KeyFileError when the file cannot be read or is not what it should be."""
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise KeyFileError(
            f"no file of keys at {path}: "
            f"`python -m service keys create --name NAME --scope read --file {path}` makes it"
        ) from error
    except OSError as error:
        raise KeyFileError(f"the file of keys {path} cannot be read: {error.strerror}") from error
    try:
        return _KeyFile.model_validate_json(content).keys
    except ValidationError as error:
        # Without the input: whoever writes a key into the file by mistake shall not find it in the log too.
        problem = error.errors(include_input=False, include_context=False, include_url=False)[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        raise KeyFileError(f"{path} is no file of keys: {where}: {problem['msg']}") from error


def others_may_write(path: Path) -> bool:
    """Whether its group or everybody may; they could make keys of their own."""
    try:
        return bool(path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    except OSError as error:
        raise KeyFileError(f"the file of keys {path} cannot be read: {error.strerror}") from error


def create_key(
    path: Path,
    name: str,
    *,
    scopes: tuple[Scope, ...],
    max_concurrent: int | None = None,
    expires: datetime | None = None,
) -> str:
    """Add a key to the file, which is made when it is not there; returns the key, which nothing else keeps.

    Raises KeyFileError when the name is taken or no name, and when the key would have expired already.
    """
    secret, now = PREFIX + secrets.token_urlsafe(KEY_BYTES), datetime.now(UTC).replace(microsecond=0)
    with _alone_with(path):
        keys = read_keys(path) if path.exists() else ()
        if any(key.name == name for key in keys):
            raise KeyFileError(f"{path} has a key {name!r} already: revoke it first, or choose another name")
        try:
            key = Key(
                name=name,
                scopes=scopes,
                sha256=digest_of(secret).hex(),
                max_concurrent=max_concurrent,
                expires=expires,
                created=now,
            )
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            raise KeyFileError(
                f"{problem['loc'][0]} = {problem['input']!r} is not taken: {problem['msg']}"
            ) from error
        if key.expires is not None and key.expired(now):
            raise KeyFileError(
                f"expires = {key.expires.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC lies in the past "
                f"(it is {now:%Y-%m-%d %H:%M:%S}): such a key would let nobody in"
            )
        _write(path, (*keys, key))
    return secret


def revoke_key(path: Path, name: str) -> None:
    """Take a key out of the file. Raises KeyFileError when it is not there."""
    with _alone_with(path):
        keys = read_keys(path)
        kept = tuple(key for key in keys if key.name != name)
        if kept == keys:
            known = ", ".join(key.name for key in keys) or "none"
            raise KeyFileError(f"{path} has no key {name!r}; it has {known}")
        _write(path, kept)


@contextmanager
def _alone_with(path: Path) -> Iterator[None]:
    """One command at a time, or two that create keys at once would leave one key."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise KeyFileError(f"{path.parent} cannot be written to: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, keys: tuple[Key, ...]) -> None:
    """Whole or not at all. A new file is its owner's alone (mkstemp makes it so)."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            _keep_access(file.fileno(), path)
            file.write(_KeyFile(keys=keys).model_dump_json(indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise KeyFileError(f"{path} cannot be written: {error.strerror}") from error
    sync(path.parent)


def _keep_access(descriptor: int, path: Path) -> None:
    """Give a file owner and mode of the one it will replace: the service must be able to read it as before."""
    if not path.exists():
        return
    before, now = path.stat(), os.fstat(descriptor)
    if (before.st_uid, before.st_gid) != (now.st_uid, now.st_gid):
        os.fchown(descriptor, before.st_uid, before.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
