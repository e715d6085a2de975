"""Sessions of people: the tokens that identity gave out, in a cookie that no script reads, refreshed in time."""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc

from shop.identity.v1 import identity_pb2 as pb
from shop_gateway.upstreams import CALL_ERRORS, WRITE, Upstreams

EARLY = timedelta(seconds=60)
"""An access token is exchanged this long before it expires: a page and its progress should outlive it."""
REMEMBERED = 1_000
"""So many exchanges are kept at most."""
REMEMBERED_FOR = timedelta(seconds=30)
"""So long the outcome of an exchange is kept: a browser that asks for two pages at once shows a refresh token twice.
Who shows it later has no part in that, and identity ends the session."""


@dataclass(frozen=True, slots=True)
class WebSession:
    """Somebody who has signed in."""

    account_id: str
    access_token: str = field(repr=False)
    access_until: int
    """Seconds since 1970."""
    refresh_token: str = field(repr=False)
    refresh_until: int

    @classmethod
    def of(cls, tokens: pb.Tokens) -> "WebSession":
        """Make a session of what identity gave out."""
        return cls(
            tokens.account_id,
            tokens.access_token,
            tokens.access_token_expires_at.seconds,
            tokens.refresh_token,
            tokens.refresh_token_expires_at.seconds,
        )

    @classmethod
    def parse(cls, kept: Any) -> "WebSession | None":
        """Read what `kept` returned; None when there is nothing."""
        return cls(*kept) if isinstance(kept, list) and len(kept) == len(fields(cls)) else None

    @property
    def kept(self) -> list[str | int]:
        """Return it as plain JSON."""
        return [self.account_id, self.access_token, self.access_until, self.refresh_token, self.refresh_until]

    @property
    def lifetime(self) -> timedelta:
        """Return how long it lasts if nobody comes back; at least nothing."""
        return max(timedelta(), datetime.fromtimestamp(self.refresh_until, UTC) - datetime.now(UTC))

    def lasts(self, for_: timedelta) -> bool:
        """Return whether its access token is valid for so long."""
        return datetime.fromtimestamp(self.access_until, UTC) - datetime.now(UTC) > for_


class Sessions:
    """Keeps sessions fresh."""

    def __init__(self, upstreams: Upstreams) -> None:
        """Exchange tokens at identity."""
        self._identity = upstreams.identity
        self._exchanges: OrderedDict[str, asyncio.Task[WebSession | None]] = OrderedDict()

    async def fresh(self, session: WebSession) -> WebSession | None:
        """Return the session with an access token that is valid; None when the session has ended.

        While identity is away a token that is still valid serves; else raises what the call raised.
        """
        if session.lasts(EARLY):
            return session
        try:
            return await asyncio.shield(self._exchange(session.refresh_token))
        except CALL_ERRORS:
            if session.lasts(timedelta()):
                return session
            raise

    def _exchange(self, refresh_token: str) -> "asyncio.Task[WebSession | None]":
        """Begin to exchange a token, or find who does: a second use of it would end the session.

        The exchange goes on when the visitor does not wait for it; the next request has its outcome.
        """
        found = self._exchanges.get(refresh_token)
        if found is not None and not _failed(found):
            return found
        made = asyncio.create_task(self._refreshed(refresh_token))
        self._exchanges[refresh_token] = made
        asyncio.get_running_loop().call_later(REMEMBERED_FOR.total_seconds(), self._exchanges.pop, refresh_token, None)
        if len(self._exchanges) > REMEMBERED:
            self._exchanges.popitem(last=False)
        return made

    async def _refreshed(self, refresh_token: str) -> WebSession | None:
        request = pb.RefreshRequest(refresh_token=refresh_token)
        try:
            answer = await self._identity.ask(self._identity.stub.Refresh, request, within=WRITE)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                return None
            raise
        return WebSession.of(answer.tokens)


def _failed(exchange: "asyncio.Task[WebSession | None]") -> bool:
    return exchange.done() and (exchange.cancelled() or exchange.exception() is not None)
