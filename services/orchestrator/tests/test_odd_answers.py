"""Answers that ask to be left alone for a while, that give long reasons, and that are too large to be read."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import timedelta

import grpc
import pytest
from amends_orchestrator.calls.channels import Channels, attempt
from amends_orchestrator.calls.targets import TargetRules, TargetScope
from amends_testkit.answers import ScriptedAnswer

from .shop import Client, Shop, open_shop, orchestrator, state


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as shop:
        yield shop


@pytest.fixture
async def client(database_url: str, shop: Shop) -> AsyncIterator[Client]:
    async with orchestrator(database_url, max_message_bytes=500_000) as client:
        await client.apply(shop)
        yield client


async def test_a_participant_that_asks_for_a_pause_gets_it(client: Client, shop: Shop):
    busy = ScriptedAnswer.refused(grpc.StatusCode.RESOURCE_EXHAUSTED, text="busy").asking_for(
        timedelta(milliseconds=700)
    )
    shop.payments.script("Charge", busy, ScriptedAnswer.ok())
    began = time.monotonic()
    assert state((await client.start("k")).run) == "COMPLETED"
    assert time.monotonic() - began >= 0.7
    assert len(shop.payments.calls("Charge")) == 2


@pytest.mark.parametrize("size", [12_000, 18_000, 60_000])
async def test_a_rejection_with_a_long_reason_is_a_rejection(client: Client, shop: Shop, size: int):
    shop.payments.script(
        "Charge", ScriptedAnswer.refused(grpc.StatusCode.FAILED_PRECONDITION, text="declined " * (size // 9))
    )
    run = (await client.start("k")).run
    assert state(run) == "COMPENSATED"
    assert len(shop.payments.calls("Charge")) == 1


async def test_an_answer_that_is_too_large_is_asked_for_once_and_parks_by_name(client: Client, shop: Shop):
    shop.payments.script("Charge", ScriptedAnswer.ok(payment_id="p" * 600_000))
    run = (await client.start("k")).run
    assert state(run) == "PARKED"
    assert (run.parked.step, run.parked.reason) == ("charge", "ANSWER_TOO_LARGE")
    assert "AMENDS_MAX_MESSAGE_BYTES" in run.parked.message
    assert len(shop.payments.calls("Charge")) == 1


async def test_a_server_that_cannot_send_its_answer_has_answered_too():
    async def large(request: bytes, context: object) -> bytes:
        return b"x" * 2_000

    server = grpc.aio.server(options=[("grpc.max_send_message_length", 1_000)])
    handlers = {"Large": grpc.unary_unary_rpc_method_handler(large)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.v1.Test", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channels = Channels(TargetRules(TargetScope.LOOPBACK, ()), max_message_bytes=1_000_000)
    answer = await attempt(channels.invoke(f"127.0.0.1:{port}", "/test.v1.Test/Large"), b"", (), 5)
    assert answer.too_large
    await channels.close()
    await server.stop(None)
