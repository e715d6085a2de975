"""The worker process, seen from the orchestrator: started when there is work, ended after a while without any.

It does one piece of work at a time. If a piece takes too long, needs too much memory or makes the process die, that is
a WorkError, and the next piece gets a new process. Called by `definitions`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import structlog

from amends_orchestrator.worker.frames import LENGTHS, FrameError, pack, unpack
from amends_orchestrator.worker.limits import WorkLimits

WORKER_STARTED = "worker.started"
WORKER_ENDED = "worker.ended"
WORK_FAILED = "worker.failed"
DIES_WITHIN = timedelta(seconds=5)
"""How long a process that has closed its pipes may take to end."""
_ENVIRONMENT = ("PATH", "PYTHONPATH", "HOME", "LANG", "LC_ALL", "TZ")
"""The environment variables that the process gets: no secrets."""
_log = structlog.get_logger(__name__)


class WorkError(Exception):
    """Work that did not finish within its limits. The text is a sentence for people."""


class BusyError(Exception):
    """Too many pieces of work wait already."""


class WorkerProcess:
    """At most one worker process. Not safe across threads."""

    def __init__(self, limits: WorkLimits | None = None) -> None:
        self.limits = limits or WorkLimits()
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._idle: asyncio.TimerHandle | None = None
        self._reaping: set[asyncio.Task[int]] = set()

    @property
    def pid(self) -> int | None:
        """Return the process's number, None while there is none."""
        return self._process.pid if self._process is not None else None

    async def do(self, head: dict[str, Any], blobs: Sequence[bytes] = ()) -> tuple[dict[str, Any], list[bytes]]:
        """Let the process do a piece of work; return its result. Raises WorkError and BusyError."""
        if self._waiting >= self.limits.waiting:
            raise BusyError
        self._waiting += 1
        try:
            async with self._turn:
                if self._idle is not None:
                    self._idle.cancel()
                return await self._do(head, blobs)
        finally:
            self._waiting -= 1
            if self._waiting == 0 and self._process is not None:
                seconds = self.limits.idle.total_seconds()
                self._idle = asyncio.get_running_loop().call_later(seconds, self._end)

    async def _do(self, head: dict[str, Any], blobs: Sequence[bytes]) -> tuple[dict[str, Any], list[bytes]]:
        try:
            frame = pack(head, blobs)
        except FrameError as error:
            raise WorkError(f"There is too much to check at once: {error}.") from None
        process = self._process
        if process is None or _has_ended(process):
            self._end()
            process = self._process = await self._start()
        try:
            async with asyncio.timeout(self.limits.wall.total_seconds()):
                answer, parts = await _converse(process, frame)
        except TimeoutError:
            self._kill()
            raise WorkError(f"The check took longer than {self.limits.wall.total_seconds():g} s.") from None
        except (OSError, EOFError, FrameError):
            raise WorkError(await self._why_ended(process)) from None
        except BaseException:  # cancelled: the next caller must not read this answer
            self._kill()
            raise
        if "failed" in answer:
            self._kill()
            _log.error(WORK_FAILED, work=head.get("work"), why=answer["failed"], trace=answer.get("trace"))
            raise WorkError(self._words(answer["failed"]))
        return answer, parts

    async def _start(self) -> asyncio.subprocess.Process:
        limits = self.limits
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "amends_orchestrator.worker.main"),
            *(str(limits.processor.total_seconds()), str(limits.memory)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        )
        _log.info(WORKER_STARTED, pid=process.pid)
        return process

    async def _why_ended(self, process: asyncio.subprocess.Process) -> str:
        self._process = None
        try:
            async with asyncio.timeout(DIES_WITHIN.total_seconds()):
                code = await process.wait()
        except TimeoutError:
            self._end_now(process)
            return self._words("silent")
        _log.error(WORKER_ENDED, pid=process.pid, code=code)
        if code == -signal.SIGXCPU:
            return self._words("processor")
        return f"The check ended its process (code {code}): it probably needed too much memory."

    def _words(self, failed: str) -> str:
        if failed == "processor":
            return f"The check needed more than {self.limits.processor.total_seconds():g} s of processor time."
        if failed == "memory":
            return f"The check needed more than {self.limits.memory // 2**20} MiB of memory."
        return "The check failed because of a defect; the orchestrator's log has the details."

    def _end(self) -> None:
        """Close the process's input, so that it ends by itself."""
        process, self._process = self._process, None
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()
            self._reap(process)

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            self._end_now(process)

    def _end_now(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is None:
            process.kill()
        self._reap(process)

    def _reap(self, process: asyncio.subprocess.Process) -> None:
        task = asyncio.get_running_loop().create_task(process.wait())
        self._reaping.add(task)
        task.add_done_callback(self._reaping.discard)

    async def close(self) -> None:
        """End the process at once."""
        if self._idle is not None:
            self._idle.cancel()
        self._kill()
        await asyncio.gather(*self._reaping, return_exceptions=True)


def _has_ended(process: asyncio.subprocess.Process) -> bool:
    """Return whether a process takes no more work; its pipe closes before its exit code is known."""
    return process.returncode is not None or process.stdin is None or process.stdin.is_closing()


async def _converse(process: asyncio.subprocess.Process, frame: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Send a frame and read the answer. Raises OSError, EOFError or FrameError if the process is broken."""
    assert process.stdin is not None
    assert process.stdout is not None
    if process.stdin.is_closing():
        raise EOFError  # uvloop's own answer to a write would be a RuntimeError
    process.stdin.write(frame)
    await process.stdin.drain()
    size, text = LENGTHS.unpack(await process.stdout.readexactly(LENGTHS.size))
    return unpack(text, await process.stdout.readexactly(size))
