"""Pages whose commands are run: what a page says is compared with what a command prints. Called by the tests beside it.

In a block of a page `$` begins a command and `...` stands for any text.
"""

import doctest
import re
import socket
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def commands(block: str) -> list[tuple[str, str]]:
    """The commands of a block, each with what it prints."""
    return COMMAND.findall(block)


def compare(command: str, printed: str, expected: str) -> None:
    """Fail when a command prints something else than the page says; blank lines and runs of spaces do not count."""
    printed = "".join(f"{line.rstrip()}\n" for line in printed.splitlines() if line.strip())
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    same = doctest.OutputChecker().check_output(expected, printed, options)
    assert same, f"$ {command}\n{printed}\n--- the page says\n{expected}"
