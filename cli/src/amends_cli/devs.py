"""A list of the `amends dev` processes on this machine, so that commands find one and `--stop` stops it.

Each holds a lock on a file of its own for as long as it runs, so that a file which is left over never looks like a
running one. Called by `amends dev` and by `amends_cli.connection`.
"""

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Dev:
    """One `amends dev` that is ready."""

    address: str
    pid: int
    started: float
    """Seconds since the epoch."""


def folder() -> Path:
    """Return the folder of the files: in the user's session folder, else one of the user's own among temporary ones."""
    session = os.environ.get("XDG_RUNTIME_DIR")
    return Path(session) / "amends-dev" if session else Path(tempfile.gettempdir()) / f"amends-dev-{os.getuid()}"


@contextmanager
def registered() -> Iterator[Callable[[str], None]]:
    """Hold this process's file for the life of the block; call what it gives with the address once that is ready.

    `stop` waits until the file is gone, so the block must enclose everything that has to be stopped.
    Raises OSError.
    """
    home = folder()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = home / f"{os.getpid()}.json"
    with path.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        def announce(address: str) -> None:
            json.dump({"address": address, "pid": os.getpid(), "started": time.time()}, file)
            file.flush()

        try:
            yield announce
        finally:
            path.unlink(missing_ok=True)


def running() -> list[Dev]:
    """Return those that run, the one that was started last at first. Files of others are not believed."""
    found = [dev for path in _files() if (dev := _read(path)) is not None]
    return sorted(found, key=lambda dev: dev.started, reverse=True)


def _files() -> list[Path]:
    home = folder()
    try:
        own = home.stat().st_uid == os.getuid()
    except OSError:
        return []
    return sorted(home.glob("*.json")) if own else []


def _read(path: Path) -> Dev | None:
    try:
        with path.open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                data = json.load(file)
                return Dev(str(data["address"]), int(data["pid"]), float(data["started"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # it has just ended, or begins
    return None
