"""The chat of who is on call: a webhook of the orchestrators, in the process that tells the stories.

It takes what is signed with its secret, as docs/how-to/get-told.md tells receivers to. Made by `playbill`.
"""

import base64
import hashlib
import hmac
import json
import secrets
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

NAME = "on-call"
TYPES = ["RunParked", "RunStalled", "RunResolved"]


class Chat:
    """What was told, by the events' types and runs."""

    def __init__(self, key: bytes) -> None:
        """Take what is signed with `key`."""
        self._key = key
        self.told: dict[tuple[str, str], dict[str, Any]] = {}
        """What each event says, by the name of its type and its run."""
        self.refused = 0
        """How often something came that nobody has signed."""

    def hear(self, headers: Any, body: bytes) -> bool:
        """Keep what comes; return False when it is not signed."""
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        good = "v1," + base64.b64encode(hmac.digest(self._key, signed, hashlib.sha256)).decode()
        if not any(hmac.compare_digest(good, given) for given in str(headers["webhook-signature"]).split()):
            self.refused += 1
            return False
        event = json.loads(body)
        self.told[event["type"].rpartition(".")[2], event["subject"]] = event["data"]
        return True


@asynccontextmanager
async def listening(folder: Path) -> AsyncIterator[tuple[Chat, Path]]:
    """Listen for the block; yield the chat and the orchestrators' file of webhooks, which names it."""
    key = secrets.token_bytes(24)
    chat = Chat(key)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard = chat.hear(self.headers, self.rfile.read(int(self.headers["content-length"])))
            self.send_response(204 if heard else 401)
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None:
            """Say nothing: the stories do."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, name="chat", daemon=True).start()
    try:
        yield chat, _settings(folder, key, server.server_port)
    finally:
        server.shutdown()
        server.server_close()


def _settings(folder: Path, key: bytes, port: int) -> Path:
    secret, settings = folder / f"{NAME}.secret", folder / "webhooks.json"
    secret.touch(mode=0o600)
    secret.write_text("whsec_" + base64.b64encode(key).decode() + "\n")
    webhook = {
        "name": NAME,
        "url": f"http://127.0.0.1:{port}/",
        "secretFile": secret.name,
        "types": TYPES,
        "allowNetworks": ["127.0.0.0/8"],
    }
    settings.write_text(json.dumps({"webhooks": [webhook]}, indent=2) + "\n")
    return settings
