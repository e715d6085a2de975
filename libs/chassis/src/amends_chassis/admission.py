"""The limits of what a server takes on at once: calls, streams, and the time in which a request must arrive.

A call costs memory from its first header on, long before anybody knows what it wants, and its sender chooses when the
request follows. So calls whose request is not there yet have a bound of their own, in number and in time; the oldest
makes way for a new one, because an honest request follows its header at once. gRPC's own cap would count these like any
other and refuse everybody else, health checks included: it is not used. Called by the interceptor.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import grpc

from amends_chassis.errors import DeadlineExceeded, DomainError, InvalidArgument, ResourceExhausted
from amends_chassis.types import Context

REQUEST_WITHIN = timedelta(seconds=10)
"""So long a request may take to arrive after its call."""
WAITING = 256
"""The number of calls that may wait for their request; each costs about 20 kB."""
STREAMS_OF_HEALTH = 128
STREAMS_OF_REFLECTION = 64

_HEALTH = "/grpc.health."
_REFLECTION = "/grpc.reflection."
INFRASTRUCTURE = (_HEALTH, _REFLECTION)


class Gate:
    """A bound on calls of some kind that are served at once; None: no bound. Who goes in counts itself in and out."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.inside = 0

    def look(self) -> None:
        """Raise ResourceExhausted when there is no room."""
        if self.limit is not None and self.inside >= self.limit:
            raise ResourceExhausted("OVERLOADED", "This server has as many calls as it can take; try again later.")


class Admission:
    """The limits of one server, and what it has taken on."""

    def __init__(self, calls: int, *, waiting: int = WAITING, within: timedelta = REQUEST_WITHIN) -> None:
        """Take `calls` at once, half of them streams, and wait for at most `waiting` requests, each of them `within`.

        Checks of health have no bound in number.
        """
        self._calls = Gate(calls)
        self._streams = Gate(max(1, calls // 2))
        self._health = Gate(None)
        self._health_streams = Gate(STREAMS_OF_HEALTH)
        self._reflection = Gate(STREAMS_OF_REFLECTION)
        self._waiting: dict[asyncio.Timeout, None] = {}  # in the order of their arrival
        self._most_waiting = waiting
        self._within = within.total_seconds()

    def gate(self, method: str, *, streaming: bool) -> Gate:
        """Return the bound that holds for a method."""
        if method.startswith(_HEALTH):
            return self._health_streams if streaming else self._health
        if method.startswith(_REFLECTION):
            return self._reflection
        return self._streams if streaming else self._calls

    async def request(self, context: Context) -> bytes:
        """Return the one request of a call.

        Raises DeadlineExceeded when it does not come in time, InvalidArgument when the caller says that none will.
        """
        if len(self._waiting) >= self._most_waiting:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            if not oldest.expired():
                oldest.reschedule(0)
        try:
            async with asyncio.timeout(self._within) as waiting:
                self._waiting[waiting] = None
                try:
                    request = await context.read()
                finally:
                    self._waiting.pop(waiting, None)
        except TimeoutError:
            raise DeadlineExceeded("REQUEST_MISSING", "The request did not follow its call in time.") from None
        if request is grpc.aio.EOF:
            raise unreadable()
        return bytes(request)


def decoder(decode: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Return `decode`, whose error says nothing of what it met: it raises InvalidArgument."""
    if decode is None:
        return None

    def decoded(request: bytes) -> Any:
        try:
            return decode(request)
        except DomainError:  # it says itself what is wrong, e.g. that there is too much of it
            raise
        except Exception as error:  # what it is depends on the implementation of protobuf
            raise unreadable() from error

    return decoded


def unreadable() -> DomainError:
    """Return the refusal of a request that is not the message of its method."""
    return InvalidArgument("REQUEST_UNREADABLE", "The request is not the message of this method.")
