"""A running `amends dev`, for tests of whole runs."""

import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from amends_embedded import Child
from amends_testkit.waiting import eventually


@asynccontextmanager
async def dev(folder: Path, *options: str) -> AsyncIterator[tuple[Child, str]]:
    """A running `amends dev` and its address; ended by Ctrl-C, with success."""
    command = [sys.executable, "-m", "amends_cli", "dev", "--port", "0", *options]
    (folder / "dev.log").unlink(missing_ok=True)
    child = Child.start("dev", command, log=folder / "dev.log")

    def address() -> str:
        assert child.alive, child.tail()
        found = re.findall(r"listens on (127\.0\.0\.1:\d+)", (folder / "dev.log").read_text())
        return found[-1] if found else ""

    try:
        yield child, await eventually(address, timeout=timedelta(seconds=60), what="dev's address")
        child.process.send_signal(signal.SIGINT)
        assert await child.wait(timedelta(seconds=30)) == 0, child.tail()
    finally:
        child.kill()
