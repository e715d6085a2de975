"""`logs`: follows the logs of all processes, each line with the name of its process. Called by the commands."""

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rich.console import Console

from amends_demo.place import ShopFolder

POLL_SECONDS = 0.2
TAIL_BYTES = 16 * 1024
LINES = 50
"""The number of earlier log lines that are shown, over all processes."""

_STAMP = re.compile(r"\d{4}-\d\d-\d\d[ T](\d\d:\d\d:\d\d(?:\.\d+)?)")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a process's log."""

    at: str
    """Its time, which sorts as text; that of the line before when it has none."""
    name: str
    text: str


def follow(place: ShopFolder, names: list[str], console: Console, *, forever: bool = True) -> int:
    """Print the last lines of the logs by their time, then what is added, until Ctrl-C.

    Return 1 when nothing runs, or when there is no process of a name.
    """
    if not place.running:
        console.print(f"Nothing runs here. `make up` starts the shop. Former logs are in {place.logs}.", soft_wrap=True)
        return 1
    known = [path.stem for path in _logs(place, [])]
    if unknown := [name for name in names if name not in known]:
        console.print(f"There is no log of {', '.join(unknown)}. There are: {', '.join(known)}.", soft_wrap=True)
        return 1
    opened: dict[Path, BinaryIO] = {}
    shown = LINES
    try:
        while True:
            found = [line for path in _logs(place, names) for line in _new_lines(path, opened)]
            for line in sorted(found, key=lambda line: line.at)[-shown:]:
                console.print(f"{line.name:<15} {line.text}", markup=False, soft_wrap=True)
            shown = 0  # everything
            if not forever:
                return 0
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        return 0
    finally:
        for file in opened.values():
            file.close()


def _logs(place: ShopFolder, names: list[str]) -> list[Path]:
    paths = [*sorted(place.logs.glob("*.log")), place.root / "postgres" / "postgres.log"]
    return [path for path in paths if path.exists() and (not names or path.stem in names)]


def _new_lines(path: Path, opened: dict[Path, BinaryIO]) -> list[LogLine]:
    if path not in opened:
        file: BinaryIO = path.open("rb")
        opened[path] = file
        if path.stat().st_size > TAIL_BYTES:
            file.seek(-TAIL_BYTES, 2)
            file.readline()  # half a line says nothing
    lines: list[LogLine] = []
    at = ""
    for line in opened[path].readlines():
        text = line.decode(errors="replace").rstrip()
        stamp = _STAMP.search(text)
        at = stamp[0].replace("T", " ") if stamp is not None else at
        lines.append(LogLine(at, path.stem, text))
    return lines
