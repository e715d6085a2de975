"""`logs`: follows the logs of all processes, each line with the name of its process. Called by the commands."""

import time
from pathlib import Path
from typing import BinaryIO

from rich.console import Console

from amends_demo.place import Place

POLL_SECONDS = 0.2
TAIL_BYTES = 2000


def follow(place: Place, names: list[str], console: Console, *, forever: bool = True) -> int:
    """Prints the end of each log, then what is added, until Ctrl-C. 1 when there is no log."""
    opened: dict[Path, BinaryIO] = {}
    if not any(_logs(place, names)):
        console.print(f"There is no log in {place.logs}. `make up` starts the shop.")
        return 1
    try:
        while True:
            for path in _logs(place, names):
                _print_new(path, opened, console)
            if not forever:
                return 0
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        return 0
    finally:
        for file in opened.values():
            file.close()


def _logs(place: Place, names: list[str]) -> list[Path]:
    paths = [*sorted(place.logs.glob("*.log")), place.root / "postgres" / "postgres.log"]
    return [path for path in paths if path.exists() and (not names or path.stem in names)]


def _print_new(path: Path, opened: dict[Path, BinaryIO], console: Console) -> None:
    if path not in opened:
        file: BinaryIO = path.open("rb")
        opened[path] = file
        if path.stat().st_size > TAIL_BYTES:
            file.seek(-TAIL_BYTES, 2)
            file.readline()  # half a line says nothing
    for line in opened[path].readlines():
        text = line.decode(errors="replace").rstrip()
        console.print(f"{path.stem:<15} {text}", markup=False, soft_wrap=True)
