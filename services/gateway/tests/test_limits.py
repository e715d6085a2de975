"""Token buckets, by a clock of the test's own."""

from contextlib import nullcontext

import pytest
from shop_gateway import limits
from shop_gateway.limits import Buckets, RateLimits
from shop_gateway.problems import HttpError


def test_a_name_has_a_burst_and_then_its_rate() -> None:
    now = 0.0
    buckets = Buckets(2, lambda: now)
    for _ in range(8):  # four seconds of two
        buckets.take("ada")
    with pytest.raises(HttpError) as refused:
        buckets.take("ada")
    assert (refused.value.status, refused.value.headers["retry-after"]) == (429, "1")
    buckets.take("eve")
    now = 0.5
    buckets.take("ada")
    with pytest.raises(HttpError):
        buckets.take("ada")


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:0:0:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("no:address", "nor:this", False),
    ],
)
def test_addresses_that_one_has_together_count_together(one: str, other: str, together: bool) -> None:
    limits_ = RateLimits(0.25, 1)
    limits_.take_for_address(one)
    with pytest.raises(HttpError) if together else nullcontext():
        limits_.take_for_address(other)


def test_a_name_that_asked_long_ago_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST", 2)
    buckets = Buckets(0.25, lambda: 0.0)
    for name in ("a", "b", "c"):
        buckets.take(name)
    buckets.take("a")  # it was forgotten
    with pytest.raises(HttpError):
        buckets.take("c")
