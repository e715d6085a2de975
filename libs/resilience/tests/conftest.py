"""A clock in the tests' hand."""

import pytest
from amends_testkit.clock import HandClock


@pytest.fixture
def clock() -> HandClock:
    return HandClock()
