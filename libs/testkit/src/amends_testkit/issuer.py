"""An issuer of access tokens: keys of its own, published over HTTP on this machine, and tokens of any kind.

For tests of what believes tokens; the tokens of the shop come from services/identity.
"""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

ISSUER, AUDIENCE = "https://issuer.test", "shop"


class LocalIssuer:
    """Signs tokens, and says which keys it has; it can be told to answer in other ways."""

    def __init__(self) -> None:
        """Begin with one key, `k1`."""
        self.keys = {"k1": ec.generate_private_key(ec.SECP256R1())}
        self.url = ""
        self.fetches = 0
        """How often it was asked for its keys."""
        self.status = 200
        self.body: bytes | None = None
        """What it answers instead of its keys."""
        self.answering = threading.Event()
        """Cleared: it takes requests, and does not answer them."""
        self.answering.set()

    def add_key(self, kid: str) -> None:
        """Have one key more, or another one under this name."""
        self.keys[kid] = ec.generate_private_key(ec.SECP256R1())

    def document(self) -> bytes:
        """Return the public keys."""
        return json.dumps({"keys": [self._public(kid) for kid in self.keys]}).encode()

    def token(self, subject: str = "ada", kid: str = "k1", key: Any = None, **changes: Any) -> str:
        """Return a token. `changes` are claims to replace, None to leave one out, `headers` those of the header."""
        now = int(time.time())
        headers = {"kid": kid, "typ": "at+jwt"} | changes.pop("headers", {})
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "iat": now,
            "exp": now + 600,
            "jti": "1",
            "auth_time": now,
        } | changes
        said = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(said, key or self.keys[kid], "ES256", headers=headers)

    def _public(self, kid: str) -> dict[str, Any]:
        made: dict[str, Any] = jwt.algorithms.ECAlgorithm.to_jwk(self.keys[kid].public_key(), as_dict=True)
        return made | {"kid": kid, "use": "sig", "alg": "ES256"}


@contextmanager
def local_issuer() -> Iterator[LocalIssuer]:
    """Run an issuer for a block."""
    issuer = LocalIssuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.fetches += 1
            body = issuer.document() if issuer.body is None else issuer.body
            issuer.answering.wait()
            self.send_response(issuer.status)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Say nothing: who asked has hung up."""

    server = Server(("127.0.0.1", 0), Handler)
    issuer.url = f"http://127.0.0.1:{server.server_port}/.well-known/jwks.json"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        issuer.answering.set()
        server.shutdown()
        server.server_close()
        thread.join()
