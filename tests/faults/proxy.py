"""A wire that can be cut: a TCP proxy between an orchestrator and whoever it talks to; tests tell it what to lose."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

CHUNK = 65536


@dataclass
class Proxy:
    """Passes everything on, until told otherwise. `markers` are bytes by which a message of the caller is known."""

    host: str
    port: int
    address: str = ""
    lose_answers_to: list[bytes] = field(default_factory=list)
    """The next message with the first of these arrives, but its answer and the connection are lost."""
    lose: list[bytes] = field(default_factory=list)
    """The next message with the first of these does not arrive, and the connection is lost."""
    lost: int = 0
    silent: bool = False
    """Connections are accepted, and nobody ever answers."""
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    @classmethod
    @asynccontextmanager
    async def open(cls, host: str, port: int) -> AsyncIterator["Proxy"]:
        """A proxy in front of host:port for the block."""
        proxy = cls(host, port)
        server = await asyncio.start_server(proxy._connected, "127.0.0.1", 0)
        proxy.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield proxy
        finally:
            server.close()
            for task in list(proxy._tasks):
                task.cancel()
            await asyncio.gather(*proxy._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Ends all connections."""
        for task in list(self._tasks):
            task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            return  # the caller sees its connection end
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self.host, self.port)
        answers = asyncio.create_task(self._answers(there, writer))
        try:
            while data := await reader.read(CHUNK):
                if self.silent:
                    continue
                if self._takes(self.lose, data):
                    return
                if self._takes(self.lose_answers_to, data):
                    answers.cancel()
                    await asyncio.gather(answers, return_exceptions=True)
                    back.write(data)
                    await there.read(1)  # it has answered: what was asked for is done
                    return
                back.write(data)
                await back.drain()
        finally:
            back.transport.abort()  # before anything is awaited: we may be cancelled again
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)

    def _takes(self, markers: list[bytes], data: bytes) -> bool:
        if markers and markers[0] in data:
            markers.pop(0)
            self.lost += 1
            return True
        return False

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                if not self.silent:
                    writer.write(data)
                    await writer.drain()
        writer.transport.abort()
