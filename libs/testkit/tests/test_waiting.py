"""Waiting ends with what was seen, or says what was not."""

from datetime import timedelta

import pytest
from amends_testkit.waiting import eventually


async def test_it_returns_what_came_true() -> None:
    seen = iter([0, None, 7])
    assert await eventually(lambda: next(seen)) == 7


async def test_an_assertion_that_does_not_hold_yet_is_tried_again() -> None:
    seen = iter([1, 2])

    async def look() -> bool:
        assert next(seen) == 2
        return True

    assert await eventually(look)


async def test_it_names_what_did_not_come_true() -> None:
    with pytest.raises(TimeoutError, match=r"the moon did not come true .* last seen: False"):
        await eventually(lambda: False, timeout=timedelta(milliseconds=10), what="the moon")
