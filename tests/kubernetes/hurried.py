"""The operator in a process whose time passes faster than it does: a test of five minutes takes a quarter of one.

Timers, deadlines and clocks of its event loop are hurried; what others do takes as long as ever. By test_outage.
"""

import asyncio
import selectors
import sys
import time

RATE = 20.0
_began = time.monotonic()
_monotonic = time.monotonic


def hurried() -> float:
    return _began + (_monotonic() - _began) * RATE


class Selector(selectors.DefaultSelector):
    """Waits as long as the hurried clock says."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(None if timeout is None else timeout / RATE)


class Policy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(Selector())


if __name__ == "__main__":
    time.monotonic = hurried
    asyncio.set_event_loop_policy(Policy())
    from amends_operator.assemble import main
    from amends_operator.settings import Settings

    sys.exit(main(Settings()))
