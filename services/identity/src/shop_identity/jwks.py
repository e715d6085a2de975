"""The public keys over HTTP, for whoever checks access tokens (RFC 7517). `assemble.py` has them served."""

import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Any

from amends_chassis.web import HttpApplication

from shop_identity.tokens import Keyring

PATH = "/.well-known/jwks.json"
MAX_AGE = 60
"""Seconds for which a copy is good: far shorter than a key is public before it signs."""


def serving(keyring: Callable[[], Keyring]) -> HttpApplication:
    """Return the application that answers with the keys that there are when it is asked."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] != PATH:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [f"the keys are at {PATH}\n".encode()]
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            start_response("405 Method Not Allowed", [("Content-Type", "text/plain"), ("Allow", "GET, HEAD")])
            return [b"the keys can be read, and nothing else\n"]
        body = document(keyring())
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = [("Cache-Control", f"public, max-age={MAX_AGE}"), ("ETag", tag)]
        if environ.get("HTTP_IF_NONE_MATCH") == tag:
            start_response("304 Not Modified", headers)
            return []
        start_response("200 OK", [*headers, ("Content-Type", "application/jwk-set+json")])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    return answer


def document(keyring: Keyring) -> bytes:
    """Return a key set as JSON, by the time from which its keys sign."""
    keys = sorted(keyring.keys, key=lambda key: (key.signs_from, key.kid))
    return json.dumps({"keys": [key.jwk() for key in keys]}).encode()
