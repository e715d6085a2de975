"""A file of rules that is read again when it changes; one that cannot be used leaves the former rules in force."""

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Generic, TypeVar

import structlog

_log = structlog.get_logger(__name__)

LOOK_EVERY = timedelta(seconds=1)
RENEWED, REFUSED = "rules.renewed", "rules.refused"
T = TypeVar("T")


class RulesError(ValueError):
    """A file of rules that cannot be used: where, and why."""


class FollowedFile(Generic[T]):
    """What `parse` makes of a file's text; it is looked at again once a second at most, when it is asked for."""

    def __init__(
        self, path: Path, parse: Callable[[str, str], T], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read the file. `parse` takes its text and its name, and raises RulesError, as this does."""
        self._path = path
        self._parse = parse
        self._clock = clock
        self._text = _read(path)
        self._current = parse(self._text, str(path))
        self._looked = clock()

    @property
    def current(self) -> T:
        """Return what is in force."""
        now = self._clock()
        if now - self._looked >= LOOK_EVERY.total_seconds():
            self._looked = now
            self._look()
        return self._current

    def _look(self) -> None:
        try:
            text = _read(self._path)
            if text == self._text:
                return
            self._text = text
            self._current = self._parse(text, str(self._path))
        except RulesError as error:
            _log.error(REFUSED, error=str(error))
        else:
            _log.info(RENEWED, path=str(self._path))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RulesError(f"{path} cannot be read: {error}") from error
