"""Pages made of parts: each part has its own deadline, its own way out, and a sentence for when there is neither.

A page awaits all of its parts at once with `asyncio.gather`, so it takes as long as the slowest of them. A part never
fails the page: what is missing is said where it would have been. What a page cannot be without it asks for by `needed`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar, cast

import grpc
import structlog
from amends_resilience import deadline
from prometheus_client import CollectorRegistry, Counter

from shop_gateway.upstreams import CALL_ERRORS

_log = structlog.get_logger(__name__)

WITHIN = timedelta(milliseconds=700)
"""So long a part may take, and so long again what stands in for it."""
NOT_THERE = (*CALL_ERRORS, TimeoutError)
"""What reading from another service raises. Anything else is a mistake in the page."""
ANSWERS = {
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
}
"""With these a service has answered, and nothing may stand in for what it says."""

T = TypeVar("T")
Read = Callable[[], Awaitable[T]]


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """A part of a page as it is shown."""

    value: T | None
    missing: str = ""
    """What the page says about what is not there; empty when everything is."""
    error: Exception | None = None
    """Why it has no value."""

    def needed(self) -> T:
        """Return the value. Raises what kept it from being read."""
        if self.error is not None:
            raise self.error
        return cast(T, self.value)

    def or_else(self, value: T) -> "Part[T]":
        """Return the part, with `value` where nobody could tell. Raises what a service has answered instead."""
        if self.error is None:
            return self
        if _is_answer(self.error):
            raise self.error
        return Part(value, self.missing)


class Composer:
    """Reads parts, and counts which were whole, which had a substitute, and which were missing."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the counter."""
        self._parts = Counter("gateway_page_parts", "Parts of pages.", ["part", "shown"], registry=registry)

    async def part(
        self,
        name: str,
        read: Read[T],
        *,
        missing: str,
        instead: Read[T] | None = None,
        within: timedelta = WITHIN,
    ) -> Part[T]:
        """Return what `read` returns, or what `instead` does when it cannot in time, or neither.

        `missing` is what the page says in both of the latter cases.
        """
        try:
            value = await _in_time(read, within)
        except NOT_THERE as error:
            _log.info("page.part.missing", part=name, error=_told(error))
            substitute = None if _is_answer(error) else instead
            return await self._substitute(name, substitute, missing, within, error)
        self._parts.labels(name, "whole").inc()
        return Part(value)

    async def _substitute(
        self, name: str, instead: Read[T] | None, missing: str, within: timedelta, error: Exception
    ) -> Part[T]:
        if instead is not None:
            try:
                value = await _in_time(instead, within)
            except NOT_THERE as second:
                _log.info("page.part.substitute_missing", part=name, error=_told(second))
            else:
                self._parts.labels(name, "substitute").inc()
                return Part(value, missing)
        self._parts.labels(name, "missing").inc()
        return Part(None, missing, error)


async def _in_time(read: Read[T], within: timedelta) -> T:
    """Read within a time that the calls behind are told too. Raises one of NOT_THERE."""
    with deadline.scope(within):
        async with asyncio.timeout(within.total_seconds()):
            return await read()


def _is_answer(error: Exception) -> bool:
    return isinstance(error, grpc.aio.AioRpcError) and error.code() in ANSWERS


def _told(error: Exception) -> str:
    return error.code().name if isinstance(error, grpc.aio.AioRpcError) else type(error).__name__
