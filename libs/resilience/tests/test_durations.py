from datetime import timedelta

import pytest
from amends_resilience.durations import LONGEST, format_duration, parse_duration
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("100ms", 0.1), ("60s", 60), ("1m30s", 90), ("24h", 86_400), ("30d", 2_592_000), ("1.5s", 1.5), ("5us", 5e-6)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        *((text, "is no duration") for text in ("", "60", "s", "1 s", "-1s", "1s ", "1e3s", "١s", "1y", "1s" * 30)),
        *((text, "longer than a hundred years") for text in ("36601d", "99999999d", "999999999d1d", "36600d1us")),
    ],
)
def test_what_is_no_duration_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_duration(text)


def test_a_hundred_years_are_allowed() -> None:
    assert parse_duration("36600d") == LONGEST


@given(st.integers(0, LONGEST // timedelta(microseconds=1)))
def test_a_duration_survives_writing_and_reading(micros: int) -> None:
    value = timedelta(microseconds=micros)
    assert parse_duration(format_duration(value)) == value


def test_people_see_a_negative_duration_with_its_sign() -> None:
    assert format_duration(-timedelta(seconds=90)) == "-1m30s"
