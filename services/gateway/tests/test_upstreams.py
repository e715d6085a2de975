"""A service that is dead or slow costs the others nothing."""

import asyncio
from datetime import timedelta
from typing import Any

import grpc
import pytest
from amends_resilience import BreakerOpenError, BulkheadFullError
from prometheus_client import CollectorRegistry, Counter
from shop_gateway import upstreams
from shop_gateway.upstreams import Upstream


def upstream() -> tuple[Upstream[None], Counter]:
    counter = Counter("refused", "Refused.", ["upstream", "why"], registry=CollectorRegistry())
    return Upstream("catalog", None, counter), counter


def failing(code: grpc.StatusCode) -> Any:
    async def call(request: Any, *, timeout: float, metadata: Any) -> Any:
        raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())

    return call


async def test_a_service_that_does_not_answer_is_not_asked_for_a_while() -> None:
    catalog, counter = upstream()
    for _ in range(5):
        with pytest.raises(grpc.aio.AioRpcError):
            await catalog.ask(failing(grpc.StatusCode.UNAVAILABLE), None)
    with pytest.raises(BreakerOpenError):
        await catalog.ask(failing(grpc.StatusCode.UNAVAILABLE), None)
    assert counter.labels("catalog", "breaker")._value.get() == 1


async def test_a_service_that_refuses_is_asked_again() -> None:
    catalog, _ = upstream()
    for _ in range(50):
        with pytest.raises(grpc.aio.AioRpcError):
            await catalog.ask(failing(grpc.StatusCode.NOT_FOUND), None)


async def test_a_slow_service_is_given_a_bounded_number_of_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstreams, "_QUEUE", timedelta(milliseconds=10))
    catalog, counter = upstream()
    hang = asyncio.Event()

    async def slow(request: Any, *, timeout: float, metadata: Any) -> Any:
        await hang.wait()

    method: Any = slow
    under_way = [asyncio.create_task(catalog.ask(method, None)) for _ in range(64)]
    await asyncio.sleep(0)
    with pytest.raises(BulkheadFullError):
        await catalog.ask(method, None)
    assert counter.labels("catalog", "bulkhead")._value.get() == 1
    hang.set()
    await asyncio.gather(*under_way)


async def test_a_call_is_made_as_whoever_shows_a_token() -> None:
    catalog, _ = upstream()
    seen = []

    async def call(request: Any, *, timeout: float, metadata: Any) -> Any:
        seen.append((timeout, metadata))

    method: Any = call
    await catalog.ask(method, None, token="t", within=timedelta(seconds=2))
    await catalog.ask(method, None)
    assert seen == [(2.0, (("authorization", "Bearer t"),)), (1.0, None)]
