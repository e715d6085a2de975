"""What the routes of the gateway share. Made once, by `assemble.py`; REST and pages are given it."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self

from amends_chassis.service import Runtime
from amends_chassis.tokens import TokenVerifier

from shop_gateway.kept import KeptAnswers
from shop_gateway.limits import RateLimits
from shop_gateway.settings import Settings
from shop_gateway.upstreams import Upstreams


class Streams:
    """The answers under way that have no end of their own. A context manager counts one in and out."""

    def __init__(self, most: int) -> None:
        """Let so many be at once."""
        self._most = most
        self.open = 0

    @property
    def full(self) -> bool:
        """Return whether there is room for none."""
        return self.open >= self._most

    def __enter__(self) -> Self:
        self.open += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.open -= 1


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
