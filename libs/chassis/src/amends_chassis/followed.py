"""Files that are read again when they change; what cannot be used leaves in force what was good before.

`Followed` is the mechanism, `FollowedFile` a file of rules in JSON: {"NAME": [{...}, ...]}. Certificates are followed
too.
"""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

import structlog

_log = structlog.get_logger(__name__)

LOOK_EVERY = timedelta(seconds=1)
"""So seldom files are looked at, however often they are asked for."""
RENEWED, REFUSED = "rules.renewed", "rules.refused"
T = TypeVar("T")


class RulesError(ValueError):
    """A file of rules that cannot be used: where, and why."""


class Followed(ABC, Generic[T]):
    """What is made of files, as they are now."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the files. Raises what `_read` raises for files that cannot be used, a ValueError."""
        self._clock = clock
        self._state = self._seen()
        self._current = self._read()
        self._looked = clock()

    @property
    def current(self) -> T:
        """Return what is in force; the files are looked at again once in LOOK_EVERY at most."""
        now = self._clock()
        if now - self._looked >= LOOK_EVERY.total_seconds():
            self._looked = now
            self.look()
        return self._current

    def look(self) -> None:
        """Look at the files now, and read them if they are others than before."""
        state = self._seen()
        if state == self._state:
            return
        self._state = state
        try:
            self._current = self._read()
        except ValueError as error:
            self._refused(error)
        else:
            self._renewed()

    @abstractmethod
    def _seen(self) -> object:
        """Return what tells the files from those that were there before; it never fails."""

    @abstractmethod
    def _read(self) -> T:
        """Read the files. Raises a ValueError that says which one cannot be used, and why."""

    @abstractmethod
    def _renewed(self) -> None:
        """Tell that other files are in force."""

    @abstractmethod
    def _refused(self, error: ValueError) -> None:
        """Tell that the files cannot be used."""


class FollowedFile(Followed[T]):
    """What `parse` makes of a file's text."""

    def __init__(
        self, path: Path, parse: Callable[[str, str], T], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read the file. `parse` takes its text and its name, and raises RulesError, as this does."""
        self._path = path
        self._parse = parse
        super().__init__(clock)

    def _seen(self) -> object:
        return stamp(self._path)

    def _read(self) -> T:
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RulesError(f"{self._path} cannot be read: {error}") from error
        return self._parse(text, str(self._path))

    def _renewed(self) -> None:
        _log.info(RENEWED, path=str(self._path))

    def _refused(self, error: ValueError) -> None:
        _log.error(REFUSED, error=str(error))


def stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what tells a file from the next of its name, a swapped link included; None when there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def entries(text: str, where: str, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the entries of the one list `name` in a file of rules, each after its place. Raises RulesError."""
    try:
        given = json.loads(text)[name]
    except (ValueError, KeyError, TypeError) as error:
        raise RulesError(f"{where} must be JSON, an object with the list `{name}`: {error}") from error
    for number, entry in enumerate(given if isinstance(given, list) else [given]):
        yield f"{where}: {name}[{number}]", entry


def texts(entry: Any, name: str, place: str, begins: str = "") -> list[str]:
    """Return the texts of an entry's list `name`, which all begin with `begins`. Raises RulesError."""
    given = entry.get(name) if isinstance(entry, dict) else None
    kind = f"text that begins with {begins}" if begins else "text"
    if not isinstance(given, list) or not given:
        raise RulesError(f"{place}.{name} must be a list with at least one {kind}")
    for text in given:
        if not isinstance(text, str) or not text or not text.startswith(begins):
            raise RulesError(f"{place}.{name}: {text!r} must be a {kind}")
    return given
