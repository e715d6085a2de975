"""Waiting for a condition instead of for a time. Called by every suite that watches something asynchronous."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar, overload

T = TypeVar("T")


@overload
async def eventually(look: Callable[[], Awaitable[T]], *, timeout: timedelta = ..., what: str = ...) -> T: ...


@overload
async def eventually(look: Callable[[], T], *, timeout: timedelta = ..., what: str = ...) -> T: ...


async def eventually(
    look: Callable[[], T | Awaitable[T]], *, timeout: timedelta = timedelta(seconds=15), what: str = "the condition"
) -> T:
    """Look until what is seen is true, and return it. Raises TimeoutError with the last thing seen.

    An AssertionError of `look` counts as not yet.
    """
    end = time.monotonic() + timeout.total_seconds()
    pause = 0.002
    while True:
        try:
            seen = look()
            if isinstance(seen, Awaitable):
                seen = await seen
            if seen:
                return seen
            last: object = seen
        except AssertionError as error:
            last = error
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come true within {timeout.total_seconds():g} s; last seen: {last!r}")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 0.05)
