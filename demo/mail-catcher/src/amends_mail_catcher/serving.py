"""The process: a mail server and a page over one inbox in memory, until SIGTERM. Called by `__main__`.

Where it listens is set by AMENDS_HOST, AMENDS_PORT (SMTP) and AMENDS_HTTP_PORT; 0 is a free port. AMENDS_REPORT_FILE
names a file into which it writes what it got.
"""

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIServer, make_server

from amends_mail_catcher.catching import listen
from amends_mail_catcher.inbox import Inbox
from amends_mail_catcher.showing import QuietPageHandler, application

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CatcherSettings:
    """Where a catcher listens."""

    host: str = "127.0.0.1"
    port: int = 0
    """Of SMTP; 0 is a free one."""
    http_port: int = 0
    report_file: Path | None = None

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> "CatcherSettings":
        """Read AMENDS_HOST, AMENDS_PORT, AMENDS_HTTP_PORT and AMENDS_REPORT_FILE. Raises ValueError."""
        report = environment.get("AMENDS_REPORT_FILE")
        return cls(
            environment.get("AMENDS_HOST", "127.0.0.1"),
            int(environment.get("AMENDS_PORT") or 0),
            int(environment.get("AMENDS_HTTP_PORT") or 0),
            Path(report) if report else None,
        )


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a catcher got to listen, as HOST:PORT."""

    smtp: str
    http: str


class _PageServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _PageServerIPv6(_PageServer):
    address_family = socket.AF_INET6


@asynccontextmanager
async def catching(settings: CatcherSettings) -> "AsyncIterator[Addresses]":
    """Serve for a block. Raises OSError when an address cannot be listened on."""
    inbox = Inbox()
    server = _PageServerIPv6 if ":" in settings.host else _PageServer
    page = make_server(settings.host, settings.http_port, application(inbox), server, QuietPageHandler)
    thread = threading.Thread(target=page.serve_forever, name="page", daemon=True)
    try:
        smtp = await listen(inbox, settings.host, settings.port)
        thread.start()
        yield Addresses(f"{settings.host}:{smtp.sockets[0].getsockname()[1]}", f"{settings.host}:{page.server_port}")
        smtp.close()
    finally:
        if thread.is_alive():
            await asyncio.to_thread(page.shutdown)
        page.server_close()


async def _serve(settings: CatcherSettings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with catching(settings) as addresses:
        _log.info("takes mails at %s, shows them at http://%s", addresses.smtp, addresses.http)
        if settings.report_file is not None:
            _report(settings.report_file, addresses)
        await stop.wait()


def _report(path: Path, addresses: Addresses) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps({"pid": os.getpid(), "smtp": addresses.smtp, "http": addresses.http}) + "\n")
    draft.replace(path)


def main() -> None:
    """Serve until SIGTERM. Exits with 1 when an address cannot be listened on."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    logging.getLogger("mail.log").setLevel(logging.WARNING)  # aiosmtpd's own, a line for each command
    settings = CatcherSettings.read()
    try:
        asyncio.run(_serve(settings))
    except OSError as error:
        sys.exit(f"the mail catcher cannot listen: {error}")
