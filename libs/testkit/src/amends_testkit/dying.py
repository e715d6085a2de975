"""Processes that die at one of the places at which a process can die. For suites that let them.

A place is before or after anything that the outside can tell apart. Places are counted, not listed: a suite takes the
first, the second, and so on, until nobody dies.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

DIED = 137


class Fate:
    """Ends the process at a place, the first being 1; never when that is 0. With `at` only those of that name count."""

    def __init__(self, dies_at: int, at: str | None = None) -> None:
        self._dies_at = dies_at
        self._at = at
        self._place = 0
        self.names: list[str] = []

    def here(self, name: str) -> None:
        """Come to a place."""
        if self._at not in (None, name):
            return
        self._place += 1
        self.names.append(name)
        if self._place == self._dies_at:
            os.write(2, f"{name}\n".encode())
            os._exit(DIED)


def forked(work: Callable[[], Awaitable[Any]]) -> tuple[int, str]:
    """Do something asynchronous in a process of its own; return its exit code and the last line that it wrote.

    What it returns is that line, as JSON; a process that was killed has a negative exit code.
    """
    heard, says = os.pipe()
    child = os.fork()
    if not child:
        os.close(heard)
        os.dup2(says, 1)
        os.dup2(says, 2)
        code = 1
        try:
            answer = asyncio.run(_answer(work))
            os.write(2, (json.dumps(answer) + "\n").encode())
            code = 0
        except BaseException as error:  # the parent is told, whatever it is
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    os.close(says)
    with os.fdopen(heard) as stream:
        said = stream.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said.strip().rpartition("\n")[2]


async def _answer(work: Callable[[], Awaitable[Any]]) -> Any:
    return await work()
