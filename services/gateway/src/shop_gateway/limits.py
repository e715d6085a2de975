"""How often somebody may ask: token buckets in this process, for each address and for each account.

With several replicas each counts for itself, so that together they let through more; what must hold exactly, such as
tries of a password, is counted by the service that owns it. Called by `edge` and `operation`.
"""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from shop_gateway.problems import HttpError

MOST = 65_536
"""So many addresses, and accounts, are remembered: those that asked longest ago make room."""
BURST_SECONDS = 4
"""A bucket holds what comes in so many seconds."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Buckets:
    """A bucket for each of many names."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Let each name ask so often in the long run."""
        self._rate = per_second
        self._size = max(1.0, per_second * BURST_SECONDS)
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, name: str) -> None:
        """Take a token of a name. Raises HttpError (429), which says in how many seconds there is one again."""
        now = self._clock()
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(self._size, now)
            if len(self._buckets) > MOST:
                self._buckets.popitem(last=False)
        bucket.tokens = min(self._size, bucket.tokens + (now - bucket.at) * self._rate)
        bucket.at = now
        self._buckets.move_to_end(name)
        if bucket.tokens < 1:
            wait = math.ceil((1 - bucket.tokens) / self._rate)
            headers = {"retry-after": str(wait), "ratelimit": f'"default";r=0;t={wait}'}
            raise HttpError(429, "RATE_LIMITED", f"You ask too often; come back in {wait} s.", headers)
        bucket.tokens -= 1


class RateLimits:
    """The limits of the gateway."""

    def __init__(self, per_address: float, per_subject: float) -> None:
        """Count requests of an address, and those of an account."""
        self._addresses = Buckets(per_address)
        self._subjects = Buckets(per_subject)

    def take_for_address(self, address: str) -> None:
        """Count a request from an address. Raises HttpError when there are too many."""
        self._addresses.take(_given_to_one(address))

    def take_for_subject(self, subject: str) -> None:
        """Count a request of an account. Raises HttpError when there are too many."""
        self._subjects.take(subject)


def _given_to_one(address: str) -> str:
    """Return what stands for all addresses that one client is likely to have: of IPv6, its network of 64 bits."""
    if ":" not in address:
        return address
    try:
        mapped = ipaddress.IPv6Address(address).ipv4_mapped
        return str(mapped or ipaddress.IPv6Network((address, 64), strict=False))
    except ValueError:  # a proxy may say anything
        return address
