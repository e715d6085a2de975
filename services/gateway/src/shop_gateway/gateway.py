"""What the routes of the gateway share. Made once, by `assemble.py`; REST and pages are given it."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from amends_chassis.service import Runtime
from amends_chassis.tokens import TokenVerifier

from shop_gateway.kept import KeptAnswers
from shop_gateway.limits import RateLimits
from shop_gateway.settings import Settings
from shop_gateway.upstreams import Upstreams

STREAMS_OF_ACCOUNT = 8
"""So many streams one account has at most, in each process: each asks the services behind again and again."""


class Streams:
    """The answers under way that have no end of their own."""

    def __init__(self, most: int) -> None:
        """Let so many be at once."""
        self._most = most
        self.open = 0
        """How many there are."""
        self._of_accounts: Counter[str] = Counter()

    def is_full(self, account_id: str) -> bool:
        """Return whether there is room for none of an account."""
        return self.open >= self._most or self._of_accounts[account_id] >= STREAMS_OF_ACCOUNT

    @contextmanager
    def one_of(self, account_id: str) -> Iterator[None]:
        """Count one of an account for a block."""
        self.open += 1
        self._of_accounts[account_id] += 1
        try:
            yield
        finally:
            self.open -= 1
            self._of_accounts[account_id] -= 1
            if not self._of_accounts[account_id]:
                del self._of_accounts[account_id]


@dataclass(frozen=True, slots=True)
class Gateway:
    """The running gateway, as its routes see it."""

    settings: Settings
    runtime: Runtime
    upstreams: Upstreams
    tokens: TokenVerifier
    """Says who shows an access token."""
    limits: RateLimits
    streams: Streams
    kept: KeptAnswers
    """Answers that are the same for everybody."""

    async def stops_within(self, pause: timedelta) -> bool:
        """Wait so long; return whether the process stops meanwhile, so that a client finds another one."""
        try:
            async with asyncio.timeout(pause.total_seconds()):
                await self.runtime.draining.wait()
        except TimeoutError:
            return False
        return True
