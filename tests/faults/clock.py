"""A clock that is wrong, for a process of this suite: the wall clock jumps, the monotonic one runs at another rate.

It bends what Python code of ours reads. The machine's clock stays as it is, and so do the database's and that of gRPC,
whose deadlines are made of `time.time` and compared with the machine's.
"""

import datetime as dates
import signal
import sys
import time
from typing import Any

JUMP = dates.timedelta(minutes=10)


def bend(rate: float) -> None:
    """From now on the monotonic clock runs at `rate`; SIGUSR1 puts the wall clock forward, SIGUSR2 back, by JUMP."""
    offset = dates.timedelta()
    real_monotonic, real = time.monotonic, dates.datetime
    began = real_monotonic()

    def jump(number: int, _: Any) -> None:
        nonlocal offset
        offset += JUMP if number == signal.SIGUSR1 else -JUMP

    class Bent(real):  # type: ignore[misc,valid-type]
        @classmethod
        def now(cls, tz: dates.tzinfo | None = None) -> dates.datetime:
            return real.now(tz) + offset

    signal.signal(signal.SIGUSR1, jump)
    signal.signal(signal.SIGUSR2, jump)
    time.monotonic = lambda: began + (real_monotonic() - began) * rate
    for name, module in list(sys.modules.items()):
        if name.startswith("amends_") and getattr(module, "datetime", None) is real:
            module.datetime = Bent  # type: ignore[attr-defined]
