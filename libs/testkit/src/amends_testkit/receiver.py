"""A webhook's destination: a real HTTPS server on this machine that keeps what it is sent and answers as scripted."""

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import ssl
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amends_embedded.authority import Authority, spiffe

from amends_testkit.waiting import eventually

HANG = b"hang"
"""Instead of an answer: the connection stays open, and nothing comes."""


def new_secret() -> str:
    """Return a secret as Standard Webhooks writes it."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()


def verifies(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """Verify a signature as https://www.standardwebhooks.com tells receivers to."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return f"v1,{expected}" in headers["webhook-signature"].split(" ")


@dataclass(frozen=True)
class WebhookRequest:
    """One request."""

    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """Return the event that came."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def kind(self) -> str:
        """Return the name of the event's message."""
        return str(self.event["type"]).rpartition(".")[2]


class Receiver:
    """A destination and its secret."""

    def __init__(self, folder: Path, name: str, port: int, scheme: str) -> None:
        """Keep the secret in `folder`."""
        self.name = name
        self.folder = folder
        self.scheme = scheme
        self.port = port
        self.answers: deque[bytes] = deque()
        """What is answered next, as bytes or HANG; 204 when nothing is scripted."""
        self.received: list[WebhookRequest] = []
        self.secret = new_secret()
        self.secret_file.write_text(self.secret + "\n")

    @property
    def secret_file(self) -> Path:
        """Return the file that has the secret."""
        return self.folder / f"{self.name}.secret"

    def script(self, *statuses: int | bytes) -> None:
        """Answer with these statuses, or bytes, next."""
        self.answers.extend(status if isinstance(status, bytes) else answer(status) for status in statuses)

    def entry(self, **fields: Any) -> dict[str, Any]:
        """Return the destination as the settings name it."""
        return {
            "name": self.name,
            "url": f"{self.scheme}://localhost:{self.port}/hook?key=hidden",
            "secretFile": str(self.secret_file),
            "allowNetworks": ["127.0.0.0/8", "::1/128"],
            "caFile": str(self.folder / "certificates" / "ca.crt"),
            **fields,
        }

    async def kinds(self, *expected: str) -> list[WebhookRequest]:
        """Wait until exactly these types of events have come, and return the requests."""

        def look() -> bool:
            kinds = [one.kind for one in self.received]
            assert kinds == [*expected], kinds
            return True

        await eventually(look, what=f"{self.name} receives {expected}")
        return self.received

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request, keep it, and answer."""
        with suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            request, *lines = head.rstrip().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            body = await reader.readexactly(int(headers["content-length"]))
            self.received.append(WebhookRequest(request.split(" ")[1], headers, body))
            said = self.answers.popleft() if self.answers else answer(204)
            if said is HANG:
                await reader.read()
            writer.write(said)
            await writer.drain()
        writer.close()


def answer(status: int, **headers: str) -> bytes:
    """Return an answer without a body; underscores of header names are hyphens."""
    lines = [f"HTTP/1.1 {status} Said", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "Content-Length: 0", "", ""]).encode()


@asynccontextmanager
async def receiving(folder: Path, name: str = "on-call", *, scheme: str = "https") -> AsyncIterator[Receiver]:
    """Serve a destination while the block lasts."""
    certificates = folder / "certificates"
    if not certificates.exists():
        Authority.make().certify(certificates, spiffe("test", "receiver"))
    tls = None
    if scheme == "https":
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificates / "tls.crt", certificates / "tls.key")
    made: list[Receiver] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await made[0].serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    made.append(Receiver(folder, name, server.sockets[0].getsockname()[1], scheme))
    try:
        yield made[0]
    finally:
        server.close()


def write_settings(path: Path, *entries: dict[str, Any]) -> Path:
    """Write the file of webhooks."""
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps({"webhooks": [*entries]}))
    draft.replace(path)
    return path
