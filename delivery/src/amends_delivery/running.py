"""Runs other programs, and says what went wrong in words that help. Called by everything here."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path


class DeliveryError(Exception):
    """A failure that ends the command: what went wrong, and how to mend it."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


LAST_LINES = 12


def run(
    *command: str,
    cwd: Path | None = None,
    stdin: str | None = None,
    more: Mapping[str, str] | None = None,
    hint: str = "",
) -> str:
    """Run a program and return what it prints. Raises DeliveryError, with the end of what it said, when it fails."""
    done = attempt(*command, cwd=cwd, stdin=stdin, more=more)
    if done.returncode != 0:
        said = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-LAST_LINES:])
        raise DeliveryError(f"`{' '.join(command[:6])}` failed:\n{said}", hint)
    return done.stdout


def attempt(
    *command: str, cwd: Path | None = None, stdin: str | None = None, more: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program and return how it ended. Raises DeliveryError when there is no such program."""
    if shutil.which(command[0]) is None:
        raise DeliveryError(f"there is no program called {command[0]}", "Install it, and try again.")
    return subprocess.run(  # noqa: S603 - fixed programs, no shell
        command, cwd=cwd, input=stdin, env=os.environ | dict(more or {}), capture_output=True, text=True, check=False
    )
