"""What the gateway gives to browsers to keep, sealed so that it is believed when it comes back.

Everything that pages remember between two requests is in cookies, so that any replica serves any request. A seal shows
that the gateway wrote the value, for this purpose, and that it is not too old; it does not hide it.
"""

import binascii
import hashlib
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import timedelta
from time import time
from typing import Any

_MAC_BYTES = 32


class Seals:
    """Seals values with a secret that all replicas share."""

    def __init__(self, secret: bytes, now: Callable[[], float] = time) -> None:
        """Derive a key for each purpose from `secret`; `now` returns seconds since 1970."""
        self._secret = secret
        self._now = now

    def seal(self, purpose: str, value: Any, lifetime: timedelta) -> str:
        """Return a text of letters, digits, `-` and `_` that `value`, which is plain JSON, is read from for a time."""
        until = int(self._now() + lifetime.total_seconds())
        text = json.dumps([until, value], separators=(",", ":")).encode()
        return urlsafe_b64encode(self._mac(purpose, text) + text).decode().rstrip("=")

    def open(self, purpose: str, sealed: str) -> Any:
        """Return the value; None when this gateway has not sealed it for this purpose, or it is too old."""
        try:
            raw = urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))
        except (binascii.Error, ValueError):
            return None
        mac, text = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(purpose, text)):
            return None
        until, value = json.loads(text)
        return value if self._now() < until else None

    def proof(self, purpose: str, of: str) -> str:
        """Return what only this gateway can make of a text: for the forms of one visitor."""
        return urlsafe_b64encode(self._mac(purpose, of.encode())).decode().rstrip("=")

    def proves(self, purpose: str, of: str, proof: str) -> bool:
        """Return whether `proof` was made of the text."""
        return hmac.compare_digest(self.proof(purpose, of).encode(), proof.encode())

    def _mac(self, purpose: str, text: bytes) -> bytes:
        key = hmac.digest(self._secret, purpose.encode(), hashlib.sha256)
        return hmac.digest(key, text, hashlib.sha256)
