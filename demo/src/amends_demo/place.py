"""The folder of a running shop: its data, logs, ports and passwords, and the lock that says whether one runs.

Called by every command. A shop holds a lock as long as it runs, so that a second one cannot break it and a stale file
never looks like a running shop.
"""

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[3]


class ShopRunsAlreadyError(RuntimeError):
    """Another process serves this place."""


@dataclass(frozen=True, slots=True)
class ShopFolder:
    """A folder of one shop, `.amends` in the checkout."""

    root: Path

    @property
    def logs(self) -> Path:
        """Return the folder of logs, with one file for each process."""
        return self.root / "logs"

    @property
    def reports(self) -> Path:
        """Return the folder where processes report what they listen on."""
        return self.root / "reports"

    @property
    def certificates(self) -> Path:
        """Return the folder of the authority and of the certificates of each process."""
        return self.root / "certificates"

    def secret(self, name: str) -> Path:
        """Return the file with the secret of a process; it is made when it is asked for first."""
        path = self.root / "secrets" / name
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600)
            path.write_text(secrets.token_urlsafe(32))
        return path

    @property
    def address(self) -> Path:
        """Return the orchestrator's address, for `amends`."""
        return self.root / "address"

    @property
    def state(self) -> Path:
        """Return the file, in JSON, that says what runs."""
        return self.root / "state.json"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the place for the life of a shop. Raises ShopRunsAlreadyError."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ShopRunsAlreadyError(str(self.root)) from None
            try:
                yield
            finally:
                for left in (self.state, self.address):
                    left.unlink(missing_ok=True)

    @property
    def running(self) -> bool:
        """Return whether a shop holds the place now."""
        if not (self.root / "lock").exists():
            return False
        with (self.root / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    def clear(self) -> None:
        """Remove what a former shop left, but keep the lock that is held."""
        for left in self.root.iterdir():
            if left.name != "lock":
                shutil.rmtree(left) if left.is_dir() else left.unlink()

    def write_state(
        self, mode: str, address: str, processes: dict[str, dict[str, Any]], certificates: str = ""
    ) -> None:
        """Write what runs to the state file, and the folder of a person's certificates when it takes some."""
        state = {
            "pid": os.getpid(),
            "mode": mode,
            "since": datetime.now(UTC).isoformat(),
            "processes": processes,
            "certificates": certificates,
        }
        _replace(self.state, json.dumps(state, indent=1))
        _replace(self.address, address + "\n")

    def report_started(self) -> None:
        """Tell the process that started this one in the background that all is up."""
        if "AMENDS_REPORT_FILE" in os.environ:
            _replace(Path(os.environ["AMENDS_REPORT_FILE"]), "{}")

    def read_state(self) -> dict[str, Any]:
        """Return what runs; empty when nothing has said so yet."""
        try:
            state: dict[str, Any] = json.loads(self.state.read_text())
        except FileNotFoundError:
            return {}
        return state


def _replace(path: Path, text: str) -> None:
    scratch = path.with_suffix(".new")
    scratch.touch(mode=0o600)  # state.json has database URLs
    scratch.write_text(text)
    scratch.replace(path)
