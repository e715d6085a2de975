"""The five promises, one call after another."""

from datetime import timedelta

import pytest
from grpc import StatusCode

from .ledger import Ledger, request


async def test_an_action_has_its_effect_and_leaves_its_response(ledger: Ledger) -> None:
    reply = await ledger.charge()
    assert (reply.ok, reply.guarded) == (True, True)
    assert await ledger.effects() == ["Charge"]
    assert await ledger.rows() == {"action": reply.response}


async def test_the_action_again_returns_the_stored_response_byte_for_byte(ledger: Ledger) -> None:
    first = await ledger.charge()
    again = await ledger.charge()
    assert (again.response, again.guarded) == (first.response, True)
    assert await ledger.effects() == ["Charge"]
    assert ledger.calls == ["Charge o-1"]


async def test_a_response_is_not_parsed_before_it_is_returned_again(ledger: Ledger) -> None:
    await ledger.charge()
    odd = b"\x0a\x01a\x0a\x01b\x52\x01\xff"  # repeats a field, and has one that the message does not know
    await ledger.pool.execute("UPDATE barrier SET response = $1", odd)
    assert (await ledger.charge()).response == odd


async def test_an_empty_response_is_a_response(ledger: Ledger) -> None:
    async def nothing(message, context):
        return type(message)()

    ledger.on["Charge"] = nothing
    assert (await ledger.charge()).response == b""
    assert (await ledger.charge()).ok
    assert (await ledger.void()).voided == "already-done"


async def test_a_large_response_is_stored_whole(ledger: Ledger) -> None:
    async def large(message, context):
        return type(message)(value="ü" * 500_000)

    ledger.on["Charge"] = large
    first = await ledger.charge()
    assert len(first.response) > 1_000_000
    assert (await ledger.charge()).response == first.response


async def test_the_same_key_with_another_request_is_refused(ledger: Ledger) -> None:
    await ledger.charge("o-1")
    reply = await ledger.charge("o-2")
    assert (reply.code, reply.reason, reply.guarded) == (StatusCode.FAILED_PRECONDITION, "KEY_REUSED", True)
    assert await ledger.effects("o-2") == []


async def test_the_same_bytes_for_another_method_are_another_request(ledger: Ledger) -> None:
    await ledger.charge()
    reply = await ledger.call("Refund", operation="action")
    assert reply.reason == "KEY_REUSED"
    assert await ledger.effects() == ["Charge"]


async def test_bytes_that_differ_are_another_request_even_if_they_mean_the_same(ledger: Ledger) -> None:
    await ledger.call("Charge", request("o-1"), operation="action")
    reply = await ledger.call("Charge", request("x") + request("o-1"), operation="action")
    assert reply.reason == "KEY_REUSED"


async def test_another_key_is_another_action(ledger: Ledger) -> None:
    replies = [await ledger.charge(key=key) for key in ("k-1", "k-2")]
    assert replies[0].response != replies[1].response
    assert await ledger.effects() == ["Charge", "Charge"]


@pytest.mark.parametrize("outcome", ["ok", "unknown"])
async def test_a_compensation_undoes_once(ledger: Ledger, outcome: str) -> None:
    await ledger.charge()
    first = await ledger.refund(outcome=outcome)
    again = await ledger.refund(outcome=outcome)
    assert (first.ok, first.guarded, again.response) == (True, True, first.response)
    assert await ledger.effects() == ["Charge", "Refund"]


async def test_a_compensation_with_another_request_is_refused(ledger: Ledger) -> None:
    await ledger.charge()
    await ledger.refund("o-1")
    assert (await ledger.refund("o-2")).reason == "KEY_REUSED"


async def test_a_compensation_whose_action_never_ran_has_no_effect_and_succeeds(ledger: Ledger) -> None:
    replies = [await ledger.refund() for _ in range(2)]
    assert [(reply.ok, reply.guarded, reply.response) for reply in replies] == [(True, True, b"")] * 2
    assert await ledger.effects() == []
    assert ledger.calls == []
    assert await ledger.rows() == {"action": None, "compensation": b""}


async def test_a_null_compensation_is_bound_to_its_request_too(ledger: Ledger) -> None:
    await ledger.refund("o-1")
    assert (await ledger.refund("o-2")).reason == "KEY_REUSED"


async def test_a_compensation_told_that_the_action_was_ok_refuses_when_nothing_is_known_of_it(ledger: Ledger) -> None:
    reply = await ledger.refund(outcome="ok")
    assert (reply.code, reply.reason, reply.guarded) == (StatusCode.FAILED_PRECONDITION, "ACTION_UNKNOWN", True)
    assert await ledger.rows() == {}


async def test_what_a_lost_memory_refused_is_not_granted_because_somebody_voided_meanwhile(ledger: Ledger) -> None:
    await ledger.void()
    assert (await ledger.refund(outcome="ok")).reason == "ACTION_UNKNOWN"
    assert (await ledger.refund(outcome="unknown")).ok


async def test_an_action_after_its_null_compensation_is_fenced(ledger: Ledger) -> None:
    await ledger.refund()
    reply = await ledger.charge()
    assert (reply.code, reply.reason, reply.guarded) == (StatusCode.ABORTED, "STEP_FENCED", True)
    assert await ledger.effects() == []


@pytest.mark.parametrize("what", ["o-1", "o-2"])
async def test_an_action_again_after_its_compensation_is_fenced_although_its_response_is_stored(
    ledger: Ledger, what: str
) -> None:
    await ledger.charge("o-1")
    await ledger.refund()
    reply = await ledger.charge(what)
    assert (reply.code, reply.reason) == (StatusCode.ABORTED, "STEP_FENCED")
    assert await ledger.effects() == ["Charge", "Refund"]


async def test_voiding_an_action_that_never_ran_fences_it(ledger: Ledger) -> None:
    replies = [await ledger.void() for _ in range(2)]
    assert [(r.ok, r.guarded, r.voided, r.response) for r in replies] == [(True, True, "voided", b"")] * 2
    late = await ledger.charge()
    assert (late.code, late.reason) == (StatusCode.ABORTED, "STEP_FENCED")
    assert (await ledger.effects(), ledger.calls) == ([], [])


async def test_voiding_an_action_that_ran_returns_its_response(ledger: Ledger) -> None:
    first = await ledger.charge()
    reply = await ledger.void()
    assert (reply.ok, reply.guarded, reply.voided) == (True, True, "already-done")
    assert reply.response == first.response
    assert (await ledger.charge()).response == first.response


async def test_a_rejected_action_leaves_nothing_and_can_be_voided(ledger: Ledger) -> None:
    async def reject(message, context):
        await context.abort(StatusCode.FAILED_PRECONDITION, "card declined")

    ledger.on["Charge"] = reject
    assert (await ledger.charge()).code is StatusCode.FAILED_PRECONDITION
    assert await ledger.rows() == {}
    assert (await ledger.void()).voided == "voided"
    del ledger.on["Charge"]
    assert (await ledger.charge()).reason == "STEP_FENCED"


async def test_voiding_a_compensation_that_never_ran_leaves_the_effect_for_ever(ledger: Ledger) -> None:
    first = await ledger.charge()
    assert (await ledger.void(of="compensation")).voided == "voided"
    late = await ledger.refund()
    assert (late.code, late.reason) == (StatusCode.ABORTED, "STEP_FENCED")
    assert await ledger.effects() == ["Charge"]
    assert (await ledger.charge()).response == first.response


async def test_voiding_a_compensation_that_ran_returns_its_response(ledger: Ledger) -> None:
    await ledger.charge()
    refund = await ledger.refund()
    reply = await ledger.void(of="compensation")
    assert (reply.voided, reply.response) == ("already-done", refund.response)


async def test_voiding_a_compensation_fences_an_action_that_is_still_to_come(ledger: Ledger) -> None:
    assert (await ledger.void(of="compensation")).voided == "voided"
    assert (await ledger.charge()).reason == "STEP_FENCED"
    assert (await ledger.refund()).reason == "STEP_FENCED"
    assert await ledger.effects() == []


async def test_a_void_can_be_sent_to_any_guarded_method(ledger: Ledger) -> None:
    await ledger.charge()
    await ledger.refund()
    reply = await ledger.call("Refund", b"", operation="void", void_of="compensation")
    assert reply.voided == "already-done"


async def test_without_an_operation_a_key_means_an_action(ledger: Ledger) -> None:
    first = await ledger.call("Charge")
    assert (await ledger.charge()).response == first.response


@pytest.mark.parametrize(
    "metadata",
    [
        {"operation": "destroy"},
        {"operation": "void", "void_of": "void"},
        {"operation": "compensation", "action_outcome": "rejected"},
        {"key": "it's"},
        {"key": "a" * 256},
        {"key": ""},
        {"key": None, "operation": "void"},
        {"key": None, "operation": "compensation"},
    ],
)
async def test_metadata_that_make_no_sense_are_refused_without_effect(ledger: Ledger, metadata) -> None:
    reply = await ledger.call("Charge", **metadata)
    assert (reply.code, reply.reason) == (StatusCode.INVALID_ARGUMENT, "CALL_INVALID")
    assert reply.guarded is (metadata.get("key", "k-1") is not None)
    assert ledger.calls == []


async def test_a_key_of_the_orchestrators_form_is_taken(ledger: Ledger) -> None:
    key = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    assert (await ledger.charge(key=key)).ok
    assert list(await ledger.rows(key)) == ["action"]


class TestRetention:
    async def age(self, ledger: Ledger, key: str, operation: str) -> None:
        await ledger.pool.execute(
            "UPDATE barrier SET created_at = now() - interval '40 days' WHERE idempotency_key = $1 AND operation = $2",
            key,
            operation,
        )

    async def test_rows_older_than_the_retention_go_and_younger_ones_stay(self, ledger: Ledger) -> None:
        for key in ("old", "young"):
            await ledger.charge(key=key)
        await self.age(ledger, "old", "action")
        assert await ledger.barrier.expire(timedelta(days=30)) == 1
        assert (await ledger.rows("old"), len(await ledger.rows("young"))) == ({}, 1)

    async def test_a_key_goes_whole_or_not_at_all(self, ledger: Ledger) -> None:
        await ledger.charge()
        await ledger.refund()
        await self.age(ledger, "k-1", "action")
        assert await ledger.barrier.expire(timedelta(days=30)) == 0
        await self.age(ledger, "k-1", "compensation")
        assert await ledger.barrier.expire(timedelta(days=30)) == 2
        assert await ledger.rows() == {}

    async def test_it_goes_in_batches_until_nothing_is_left(self, ledger: Ledger) -> None:
        for number in range(5):
            await ledger.void(key=f"k-{number}")
            await self.age(ledger, f"k-{number}", "action")
        batches = [await ledger.barrier.expire(timedelta(days=30), limit=2) for _ in range(4)]
        assert batches == [2, 2, 1, 0]

    async def test_a_key_that_somebody_else_expires_is_not_waited_for(self, ledger: Ledger) -> None:
        await ledger.charge()
        await self.age(ledger, "k-1", "action")
        async with ledger.pool.acquire() as other, other.transaction():
            await other.execute("SELECT FROM barrier FOR UPDATE")
            assert await ledger.barrier.expire(timedelta(days=30)) == 0
        assert await ledger.barrier.expire(timedelta(days=30)) == 1
