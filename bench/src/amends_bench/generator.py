"""Speaks with the load generator process. Used by every benchmark of sagas."""

import asyncio
import json
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

LONGEST_LINE = 16 * 1024 * 1024


class LoadGenerator:
    """One generator; rounds of both sides come from the same process."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "amends_bench.load",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            if self._process.returncode is None:
                self._process.terminate()
            await self._process.wait()

    async def round(
        self,
        side: str,
        targets: Sequence[str],
        in_flight: int,
        duration: timedelta,
        *,
        ends: bool = False,
        padding: int = 0,
        certificates: Path | None = None,
    ) -> dict[str, Any]:
        """Run one round and return its figures: done, rate (per second), p50 and p99 (seconds), failed.

        `padding` is how many bytes the input of a saga is larger than an order. With `certificates`, a folder, the
        targets are called with mutual TLS.
        """
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        order: dict[str, Any] = {
            "side": side,
            "targets": list(targets),
            "in_flight": in_flight,
            "seconds": duration.total_seconds(),
        }
        order |= {"ends": ends, "padding": padding, "certificates": str(certificates or "")}
        process.stdin.write(json.dumps(order).encode() + b"\n")
        await process.stdin.drain()
        line = await process.stdout.readline()
        if not line:
            raise RuntimeError("the load generator ended")
        said: dict[str, Any] = json.loads(line)
        return said
