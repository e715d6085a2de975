"""The fake participant keeps the promises that it claims, and shows what it was asked."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import grpc
import grpc.aio
import pytest
from amends_contracts import descriptor_set
from amends_testkit.answers import ScriptedAnswer
from amends_testkit.participant import FakeParticipant
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

from shop.payments.v1 import payments_pb2, payments_pb2_grpc

PAYMENTS = "shop.payments.v1.PaymentService"


@pytest.fixture
async def payments() -> AsyncIterator[FakeParticipant]:
    async with await FakeParticipant.start(descriptor_set(), [PAYMENTS]) as participant:
        yield participant


@pytest.fixture
async def stub(payments) -> AsyncIterator[payments_pb2_grpc.PaymentServiceStub]:
    async with grpc.aio.insecure_channel(payments.target) as channel:
        yield payments_pb2_grpc.PaymentServiceStub(channel)


def told(key: str = "k", operation: str = "action", **more: str) -> tuple[tuple[str, str], ...]:
    named = {"amends-" + name.replace("_", "-"): value for name, value in more.items()}
    return tuple({"amends-idempotency-key": key, "amends-operation": operation, **named}.items())


def reason(error: grpc.aio.AioRpcError) -> str:
    status = rpc_status.from_call(error)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return info.reason


CHARGE = payments_pb2.ChargeRequest(order_id="o-1", card_token="tok_visa")


async def test_it_answers_in_the_scripted_order_and_repeats_the_last_answer(payments, stub) -> None:
    payments.script(
        "Charge",
        ScriptedAnswer.refused(grpc.StatusCode.UNAVAILABLE),
        ScriptedAnswer.ok(payment_id="p-1"),
        ScriptedAnswer.ok(payment_id="p-2"),
    )
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.Charge(CHARGE)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert [(await stub.Charge(CHARGE)).payment_id for _ in range(3)] == ["p-1", "p-2", "p-2"]


async def test_it_remembers_request_metadata_and_deadline(payments, stub) -> None:
    await stub.Charge(CHARGE, timeout=5, metadata=told(step="charge"))
    call = await payments.called("Charge")
    assert call.request.order_id == "o-1"
    assert call.key == "k"
    assert call.metadata["amends-step"] == "charge"
    assert timedelta(seconds=1) < call.remaining < timedelta(seconds=6)
    assert payments.effects == [("Charge", "k")]


async def test_a_script_for_a_method_that_is_not_there_is_refused(payments) -> None:
    with pytest.raises(LookupError, match="Chrage"):
        payments.script("Chrage", ScriptedAnswer.ok())


async def test_a_refusal_carries_its_reason_and_has_no_effect(payments, stub) -> None:
    payments.script("Charge", ScriptedAnswer.refused(grpc.StatusCode.FAILED_PRECONDITION, "CARD_DECLINED"))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.Charge(CHARGE, metadata=told())
    assert reason(error.value) == "CARD_DECLINED"
    assert dict(error.value.trailing_metadata())["amends-barrier"] == "1"
    assert payments.effects == []


async def test_the_same_key_has_one_effect_and_one_response(payments, stub) -> None:
    payments.script("Charge", ScriptedAnswer.lost(payment_id="p-1"), ScriptedAnswer.ok(payment_id="p-2"))
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.Charge(CHARGE, metadata=told())
    assert (await stub.Charge(CHARGE, metadata=told())).payment_id == "p-1"
    assert payments.effects == [("Charge", "k")]


async def test_the_same_key_with_another_request_is_refused(payments, stub) -> None:
    await stub.Charge(CHARGE, metadata=told())
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.Charge(payments_pb2.ChargeRequest(order_id="o-2"), metadata=told())
    assert reason(error.value) == "KEY_REUSED"


async def test_a_compensation_without_its_action_has_no_effect_and_fences_it(payments, stub) -> None:
    refund = payments_pb2.RefundRequest(order_id="o-1")
    await stub.Refund(refund, metadata=told(operation="compensation"))
    await stub.Refund(refund, metadata=told(operation="compensation"))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.Charge(CHARGE, metadata=told())
    assert error.value.code() is grpc.StatusCode.ABORTED
    assert reason(error.value) == "STEP_FENCED"
    assert payments.effects == []


async def test_a_compensation_of_an_action_that_is_known_ok_but_forgotten_here_is_refused(payments, stub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.Refund(
            payments_pb2.RefundRequest(order_id="o-1"), metadata=told(operation="compensation", action_outcome="ok")
        )
    assert reason(error.value) == "ACTION_UNKNOWN"


async def test_a_void_returns_the_response_of_what_ran_and_fences_what_did_not(payments, stub) -> None:
    payments.script("Charge", ScriptedAnswer.ok(payment_id="p-1"))
    await stub.Charge(CHARGE, metadata=told("ran"))
    ran = stub.Charge(CHARGE, metadata=told("ran", "void"))
    assert (await ran).payment_id == "p-1"
    assert dict(await ran.trailing_metadata())["amends-void"] == "already-done"
    never = stub.Charge(CHARGE, metadata=told("never", "void"))
    await never
    assert dict(await never.trailing_metadata())["amends-void"] == "voided"
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.Charge(CHARGE, metadata=told("never"))
    assert reason(error.value) == "STEP_FENCED"
    assert payments.effects == [("Charge", "ran")]


async def test_an_answer_can_be_held_until_the_test_lets_it_go(payments, stub) -> None:
    gate = asyncio.Event()
    payments.script("Charge", ScriptedAnswer.ok(payment_id="p-1").once(gate))
    call = asyncio.ensure_future(stub.Charge(CHARGE))
    await payments.called("Charge")
    assert payments.effects == []
    gate.set()
    assert (await call).payment_id == "p-1"


async def test_a_late_answer_is_unknown_to_its_caller_and_has_its_effect(payments, stub) -> None:
    payments.script(
        "Charge", ScriptedAnswer.ok(payment_id="p-1").answered_after(timedelta(seconds=30)), ScriptedAnswer.ok()
    )
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await stub.Charge(CHARGE, metadata=told(), timeout=0.1)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (await stub.Charge(CHARGE, metadata=told())).payment_id == "p-1"


async def test_a_replica_without_the_interceptor_sends_no_trailer(payments, stub) -> None:
    payments.trailer = False
    call = stub.Charge(CHARGE, metadata=told())
    await call
    assert "amends-barrier" not in dict(await call.trailing_metadata() or ())


async def test_its_contract_is_read_by_reflection(payments) -> None:
    def look() -> list[str]:
        with grpc.insecure_channel(payments.target) as channel:
            return list(ProtoReflectionDescriptorDatabase(channel).get_services())

    assert PAYMENTS in await asyncio.to_thread(look)
