"""Runs peers, which live in a virtual environment of their own (`make bench-peers`), and speaks with them.

A peer is a script in bench/peers that reads orders to work as lines of JSON, like our own load generator.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

BENCH = Path(__file__).resolve().parents[2]
PYTHON = BENCH / ".peers" / "bin" / "python"
ENDING = 10.0
"""Seconds that a peer has to end by itself."""


class PeersMissingError(RuntimeError):
    """The peers are not installed."""


class Peer:
    """The process that runs a peer's program."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Return the process id of the peer."""
        return self._process.pid

    async def work(self, order: dict[str, Any]) -> dict[str, Any]:
        """Let the peer do one round of work, and return its figures."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        await self._process.stdin.drain()
        while line := await self._process.stdout.readline():
            if line.startswith(b"{"):  # peers may print what they like beside their answers
                said: dict[str, Any] = json.loads(line)
                return said
        raise RuntimeError("the peer ended")


def installed(program: str) -> bool:
    """Return whether a peer's own program is installed: not every machine has a wheel of it."""
    return (PYTHON.parent / program).exists()


@asynccontextmanager
async def running(script: str, database: str = "") -> AsyncIterator[Peer]:
    """Yield a running peer over a database, if it takes one. Raises PeersMissingError."""
    if not PYTHON.exists():
        raise PeersMissingError("the peers are not installed: make bench-peers")
    process = await asyncio.create_subprocess_exec(
        str(PYTHON),
        str(BENCH / "peers" / script),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "PEER_DATABASE_URL": database},
    )
    try:
        yield Peer(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()  # it ends, and what it has started with it
        try:
            await asyncio.wait_for(process.wait(), ENDING)
        except TimeoutError:
            process.kill()
            await process.wait()
