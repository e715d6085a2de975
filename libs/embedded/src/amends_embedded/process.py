"""Starts programs of ours as child processes, knows when they are ready and when they died, and stops them.

Called by `amends dev`, the demo and tests. A program that serves writes its addresses to a report file once it
listens; waiting for that file is how a start is awaited, so no port is ever guessed or polled.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

POLL = timedelta(milliseconds=20)
TAIL_BYTES = 8192


class ChildDiedError(RuntimeError):
    """A child ended before it was ready. The text says how, with the last lines of its log."""


class ReportTimeoutError(RuntimeError):
    """A child did not report in time. The text has the last lines of its log."""


@cache
def tie() -> tuple[str, ...]:
    """Return a prefix that ends a child when its parent dies, where util-linux has it; () elsewhere."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return ()
    prefix = (setpriv, "--pdeathsig", "TERM")
    probe = subprocess.run([*prefix, "true"], capture_output=True, check=False)  # noqa: S603
    return prefix if probe.returncode == 0 else ()


def clean_environment() -> dict[str, str]:
    """Our environment without `AMENDS_*`: a child gets only the settings that it is given."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AMENDS_")}


def is_running(pid: int) -> bool:
    """Return whether a process runs; one that has ended and was not waited for (a zombie) does not."""
    try:
        said = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return said.rpartition(")")[2].split()[0] not in ("Z", "X")


async def until(condition: Callable[[], bool], timeout: timedelta) -> bool:
    """Wait until the condition holds; return False when the time has passed first."""
    end = time.monotonic() + timeout.total_seconds()
    while not condition():
        if time.monotonic() >= end:
            return False
        await asyncio.sleep(POLL.total_seconds())
    return True


@dataclass(slots=True)
class Child:
    """One running or ended program. Belongs to no event loop."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    """Where its output goes; appended to over restarts."""
    report: Path | None
    """The file in which it says where it listens; None when it does not report."""

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        report: Path | None = None,
        directory: Path | None = None,
        outlives_us: bool = False,
    ) -> Self:
        """Start a program with `environment` over our own without `AMENDS_*`.

        With `report` the program finds the file's name in AMENDS_REPORT_FILE. It gets a session of its own, so that
        Ctrl-C at the terminal reaches only us and the order of stopping stays ours. It dies with us, unless it
        `outlives_us`.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        told = clean_environment() | dict(environment or {})
        if report is not None:
            report.parent.mkdir(parents=True, exist_ok=True)
            report.unlink(missing_ok=True)
            told["AMENDS_REPORT_FILE"] = str(report)
        with log.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603
                [*(() if outlives_us else tie()), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=told,
                cwd=directory,
                start_new_session=True,
            )
        return cls(name, process, log, report)

    @property
    def pid(self) -> int:
        """Return the process id of the child."""
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Return whether the child runs now."""
        return self.process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative when a signal ended it."""
        return self.process.poll()

    async def ready(self, timeout: timedelta = timedelta(seconds=30)) -> dict[str, Any]:
        """Wait for the report and return it. Raises ChildDiedError or ReportTimeoutError."""
        report = self.report
        if report is None:
            raise ValueError(f"{self.name} was started without a report file")
        await until(lambda: report.exists() or not self.alive, timeout)
        if not self.alive:
            raise ChildDiedError(f"{self.name} ended with {self.exit_code} before it was ready\n{self.tail()}")
        if not report.exists():
            raise ReportTimeoutError(f"{self.name} did not report within {timeout.total_seconds():g} s\n{self.tail()}")
        said: dict[str, Any] = json.loads(report.read_text())
        return said

    async def wait(self, timeout: timedelta | None = None) -> int | None:
        """Wait for its end and return the exit code; None when it still runs after `timeout`."""
        while self.alive:
            if not await until(lambda: not self.alive, timeout or timedelta(minutes=1)) and timeout is not None:
                return None
        return self.exit_code

    async def terminate(self, grace: timedelta = timedelta(seconds=15)) -> int:
        """Ask it to end, and kill it when it has not within `grace`. Return the exit code."""
        if self.alive:
            self.process.terminate()
        if await self.wait(grace) is None:
            self.kill()
        return self.process.wait()

    def kill(self) -> None:
        """kill -9, and reaps it. Does nothing when it has ended."""
        if self.alive:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def tail(self, lines: int = 15) -> str:
        """Return the last lines of its log."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])


@dataclass(slots=True)
class Children:
    """Children that end together: `async with Children() as children`. The last started is stopped first."""

    grace: timedelta = timedelta(seconds=15)
    running: dict[str, Child] = field(default_factory=dict)

    def add(self, child: Child) -> Child:
        """Take care of a child; one of the same name must have ended."""
        former = self.running.get(child.name)
        if former is not None and former.alive:
            raise ValueError(f"{child.name} runs already")
        self.running.pop(child.name, None)
        self.running[child.name] = child  # at the end: a restarted child is the last started
        return child

    async def stop(self) -> None:
        """Stop all children, in the reverse of their start."""
        for child in reversed(list(self.running.values())):
            await child.terminate(self.grace)
        self.running.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.stop()
        finally:
            # Reached with children only when the stop itself was cancelled: then nothing may be left either.
            for child in self.running.values():
                child.kill()
