"""Passes for images: what lets an <img> of the search page load an image while API keys are on.

An <img> cannot send a header, so the page trades its key for a cookie. That cookie is less than the key in
every way: it opens images and nothing else, for an hour, for a key that is still in the file; scripts
cannot read it (HttpOnly), and no other site's page can use it (SameSite=Strict). The other way, fetching each
image by script into a blob, would take lazy loading, the browser's cache and "open in a new tab" from it.

A pass is `<expires>.<name>.<HMAC-SHA256>`, signed over the digest of the key as well, so that it dies with the
key.
"""

import hmac
import secrets

from service.access.keys import Key, Keyring

COOKIE = "twinlens_images"
PASS_SECONDS = 3600
SKEW_SECONDS = 60  # by which the clocks of replicas that share a secret may differ
_MAX_CHARACTERS = 256


class Passes:
    """Signs and checks passes. Without a secret of its own it makes one, which ends with the process."""

    def __init__(self, secret: str | None) -> None:
        self._secret = secret.encode() if secret else secrets.token_bytes(32)

    def issue(self, key: Key, *, now: float) -> str:
        """A pass for the images that `key` may see; `now` in seconds since the epoch."""
        expires = int(now) + PASS_SECONDS
        return f"{expires}.{key.name}.{self._sign(key, expires)}"

    def find(self, value: str, keyring: Keyring, *, now: float) -> Key | None:
        """The key a pass was issued for; None when it is not ours, too old, or its key is gone.

        Nor is one for longer than a pass lasts: the clock was ahead when it was issued, and has been set back.
        """
        expires, _, rest = value[:_MAX_CHARACTERS].partition(".")
        name, _, signature = rest.rpartition(".")
        key = keyring.named(name)
        if key is None or not (expires.isascii() and expires.isdigit()):
            return None
        if not 0 < int(expires) - now <= PASS_SECONDS + SKEW_SECONDS:
            return None
        good = hmac.compare_digest(self._sign(key, int(expires)).encode(), signature.encode())
        return key if good else None

    def _sign(self, key: Key, expires: int) -> str:
        return hmac.digest(self._secret, f"{expires}.{key.name}.{key.sha256}".encode(), "sha256").hex()
