"""The same key from several sides at once, on real Postgres: the primary key puts them in an order, whichever it is."""

import asyncio
import random

import asyncpg
import pytest
from amends_barrier.protocol import digest
from amends_barrier.rows import Scripts
from amends_testkit.waiting import eventually

from .ledger import SERVICE, Ledger, Reply, request, serve


async def test_twenty_copies_of_an_action_at_once_have_one_effect_and_one_response(ledger: Ledger) -> None:
    replies = await asyncio.gather(*(ledger.charge() for _ in range(20)))
    assert {reply.response for reply in replies} == {replies[0].response}
    assert all(reply.ok and reply.guarded for reply in replies)
    assert await ledger.effects() == ["Charge"]
    assert ledger.calls == ["Charge o-1"]


async def test_twenty_copies_of_a_compensation_at_once_undo_once(ledger: Ledger) -> None:
    await ledger.charge()
    replies = await asyncio.gather(*(ledger.refund(outcome="ok") for _ in range(20)))
    assert {reply.response for reply in replies} == {replies[0].response}
    assert await ledger.effects() == ["Charge", "Refund"]


async def test_twenty_copies_of_a_null_compensation_at_once_all_succeed_without_effect(ledger: Ledger) -> None:
    replies = await asyncio.gather(*(ledger.refund() for _ in range(20)))
    assert all(reply.ok for reply in replies)
    assert await ledger.effects() == []


@pytest.mark.parametrize("of", ["action", "compensation"])
async def test_twenty_voids_at_once_agree(ledger: Ledger, of: str) -> None:
    replies = await asyncio.gather(*(ledger.void(of=of) for _ in range(20)))
    assert {reply.voided for reply in replies} == {"voided"}


async def test_compensations_of_an_action_voided_before_agree_too(ledger: Ledger) -> None:
    await ledger.void()
    replies = await asyncio.gather(*(ledger.refund() for _ in range(20)))
    assert {(reply.ok, reply.response) for reply in replies} == {(True, b"")}


async def test_different_requests_under_one_key_at_once_let_one_win(ledger: Ledger) -> None:
    replies = await asyncio.gather(*(ledger.charge(f"o-{number}") for number in range(10)))
    assert sorted(reply.reason for reply in replies) == [""] + ["KEY_REUSED"] * 9


class TestFirstTheAction:
    """The action holds its row; the other arrives and waits for it."""

    async def start(self, ledger: Ledger) -> "asyncio.Task[Reply]":
        ledger.on["Charge"] = ledger.gated
        action = asyncio.create_task(ledger.charge())
        await eventually(lambda: ledger.calls, what="the action")
        return action

    async def test_then_its_compensation_undoes_it(self, ledger: Ledger) -> None:
        action = await self.start(ledger)
        compensation = asyncio.create_task(ledger.refund())
        await ledger.waiting()
        assert ledger.calls == ["Charge o-1"]
        ledger.gate.set()
        assert (await action).ok
        assert (await compensation).text.startswith("Refund")
        assert await ledger.effects() == ["Charge", "Refund"]

    async def test_then_its_compensation_finds_nothing_to_undo_if_it_fails(self, ledger: Ledger) -> None:
        async def fail(message, context):
            await ledger.gate.wait()
            raise RuntimeError("out of order")

        ledger.on["Charge"] = fail
        action = asyncio.create_task(ledger.charge())
        await eventually(lambda: ledger.calls, what="the action")
        compensation = asyncio.create_task(ledger.refund())
        await ledger.waiting()
        ledger.gate.set()
        assert not (await action).ok
        assert (await compensation).response == b""
        assert await ledger.effects() == []
        assert await ledger.rows() == {"action": None, "compensation": b""}

    async def test_then_a_void_returns_its_response(self, ledger: Ledger) -> None:
        action = await self.start(ledger)
        void = asyncio.create_task(ledger.void())
        await ledger.waiting()
        ledger.gate.set()
        assert (await void).response == (await action).response
        assert (await void).voided == "already-done"

    async def test_then_a_void_of_its_compensation_leaves_it_alone(self, ledger: Ledger) -> None:
        action = await self.start(ledger)
        void = asyncio.create_task(ledger.void(of="compensation"))
        await ledger.waiting()
        ledger.gate.set()
        assert (await action).ok
        assert (await void).voided == "voided"
        assert await ledger.effects() == ["Charge"]

    async def test_then_a_copy_returns_the_stored_response(self, ledger: Ledger) -> None:
        action = await self.start(ledger)
        copy = asyncio.create_task(ledger.charge())
        await ledger.waiting()
        ledger.gate.set()
        assert (await copy).response == (await action).response
        assert ledger.calls == ["Charge o-1"]

    async def test_then_a_copy_does_the_work_if_it_fails(self, ledger: Ledger) -> None:
        async def fail(message, context):
            await ledger.gate.wait()
            del ledger.on["Charge"]
            raise RuntimeError("out of order")

        ledger.on["Charge"] = fail
        action = asyncio.create_task(ledger.charge())
        await eventually(lambda: ledger.calls, what="the action")
        copy = asyncio.create_task(ledger.charge())
        await ledger.waiting()
        ledger.gate.set()
        assert not (await action).ok
        assert (await copy).ok
        assert await ledger.effects() == ["Charge"]


class TestFirstTheOther:
    """Another session has fenced the action, not yet committed; the action arrives and waits for it."""

    @pytest.mark.parametrize("fate", ["COMMIT", "ROLLBACK"])
    async def test_then_the_action_is_fenced_if_that_is_committed(
        self, ledger: Ledger, fate: str, suite_url: str
    ) -> None:
        other = await asyncpg.connect(suite_url)
        scripts = Scripts("other")
        await other.execute(";".join(scripts.prepare))
        script = scripts.begin_compensation("k-1", digest(f"/{SERVICE}/Refund", request("o-1")))
        assert await other.execute(script) == "INSERT 0 0"
        action = asyncio.create_task(ledger.charge())
        await ledger.waiting()
        assert ledger.calls == []
        await other.execute(fate)
        await other.close()
        reply = await action
        if fate == "COMMIT":
            assert (reply.reason, await ledger.effects()) == ("STEP_FENCED", [])
        else:
            assert (reply.ok, await ledger.effects()) == (True, ["Charge"])

    async def test_a_copy_of_the_action_during_its_compensation_has_no_effect(self, ledger: Ledger) -> None:
        first = await ledger.charge()
        undoing = asyncio.Event()

        async def slow_refund(message, context):
            undoing.set()
            await ledger.gate.wait()
            return message

        ledger.on["Refund"] = slow_refund
        compensation = asyncio.create_task(ledger.refund())
        await undoing.wait()
        assert (await ledger.charge()).response == first.response
        ledger.gate.set()
        assert (await compensation).ok
        assert (await ledger.charge()).reason == "STEP_FENCED"
        assert ledger.calls == ["Charge o-1", "Refund o-1"]

    async def test_a_void_of_a_compensation_under_way_returns_its_response(self, ledger: Ledger) -> None:
        await ledger.charge()
        undoing = asyncio.Event()

        async def slow_refund(message, context):
            undoing.set()
            await ledger.gate.wait()
            return message

        ledger.on["Refund"] = slow_refund
        compensation = asyncio.create_task(ledger.refund())
        await undoing.wait()
        void = asyncio.create_task(ledger.void(of="compensation"))
        await ledger.waiting()
        ledger.gate.set()
        assert (await void).voided == "already-done"
        assert (await void).response == (await compensation).response


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
async def test_whatever_arrives_at_once_nothing_happens_twice_late_or_without_its_action(
    suite_url: str, isolation: str
) -> None:
    chance = random.Random(isolation)
    async with serve(suite_url, default_transaction_isolation=isolation) as ledger:

        async def persistent(call, key):
            """As an orchestrator would: again, as long as the answer is UNAVAILABLE."""
            while (reply := await call(key, key=key)).reason == "TRANSACTION_CONFLICT":
                assert reply.guarded
            return reply

        async def void(what, key):
            return await ledger.void(key=key)

        async def one_saga(key: str) -> dict[str, list[Reply]]:
            calls = [ledger.charge] * chance.randint(0, 3) + [ledger.refund] * chance.randint(0, 3)
            calls += [void] * chance.randint(0, 2)
            chance.shuffle(calls)
            replies = await asyncio.gather(*(persistent(call, key) for call in calls))
            said: dict[str, list[Reply]] = {"charge": [], "refund": [], "void": []}
            for call, reply in zip(calls, replies, strict=True):
                said[call.__name__].append(reply)
            return said

        keys = [f"k-{number}" for number in range(40)]
        for key, said in zip(keys, await asyncio.gather(*(one_saga(key) for key in keys)), strict=True):
            effects = await ledger.effects(key)
            assert effects in ([], ["Charge"], ["Charge", "Refund"])
            assert len({reply.response for reply in said["charge"] if reply.ok}) <= 1
            assert {reply.reason for reply in said["charge"]} <= {"", "STEP_FENCED"}
            assert any(reply.ok for reply in said["charge"]) <= bool(effects)
            assert all(reply.ok for reply in said["refund"] + said["void"])
            assert len({reply.response for reply in said["refund"]}) <= 1
            assert len({(reply.voided, reply.response) for reply in said["void"]}) <= 1
            if said["refund"]:
                assert effects in ([], ["Charge", "Refund"])
            if any(reply.voided == "voided" for reply in said["void"]):
                assert effects == []
            assert (await persistent(ledger.refund, key)).ok
            assert await ledger.effects(key) in ([], ["Charge", "Refund"])
