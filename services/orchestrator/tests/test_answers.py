"""What an answer says is what is durable: how a run stands, what is not decided yet, and payloads that fit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import grpc
import pytest
from amends_chassis.errors import ResourceExhausted
from amends_chassis.text import UNSAFE
from amends_orchestrator.api.watched_runs import WatchedRuns
from amends_orchestrator.journal import requests
from amends_orchestrator.journal.requests import RequestKind, RequestReply, RunRequest
from amends_testkit.answers import ScriptedAnswer
from amends_testkit.waiting import eventually

from amends.saga.v1 import run_pb2
from amends.saga.v1 import run_service_pb2 as pb
from shop.payments.v1.payments_pb2 import ChargeResponse
from shop.shipping.v1.shipping_pb2 import BookResponse

from .journal_helpers import Journal
from .shop import EXAMPLE, INPUT, POLICY, Client, Shop, open_shop, orchestrator, state

AWAY = ScriptedAnswer.refused(grpc.StatusCode.UNAVAILABLE, text="away")
DECLINED = ScriptedAnswer.refused(grpc.StatusCode.FAILED_PRECONDITION, reason="CARD_DECLINED")
REFUSED = ScriptedAnswer.refused(
    grpc.StatusCode.FAILED_PRECONDITION, reason="REFUNDS_CLOSED", text="refunds are closed"
)


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as shop:
        yield shop


async def parked(client: Client, shop: Shop, key: str) -> pb.StartRunResponse:
    shop.shipping.script("Book", DECLINED)
    shop.payments.script("Refund", REFUSED)
    answer = await client.start(key)
    assert state(answer.run) == "PARKED"
    return answer


def resolve(run_id: str, seq: int, **more: Any) -> pb.ResolveRunRequest:
    more = {"actor": "ada", "reason": "closed", "resolution": pb.RESOLUTION_RETRY} | more
    return pb.ResolveRunRequest(run_id=run_id, expected_seq=seq, **more)


async def test_who_waits_for_a_run_that_left_the_memory_meanwhile_is_told_its_end(database_url: str, shop: Shop):
    policy = POLICY.replace("initial: 10ms, max: 50ms", "initial: 1500ms, max: 1500ms")
    away = AWAY.asking_for(timedelta(milliseconds=700))
    shop.payments.script("Charge", away, ScriptedAnswer.ok())
    async with orchestrator(database_url, passivate_after=timedelta(milliseconds=20)) as client:
        await client.apply(shop, policy=policy)
        answer = await client.start("k")
        assert state(answer.run) == "COMPLETED"
        assert answer.run.fence > 1, "it was let go and taken again"
        shop.payments.script("Charge", away, DECLINED)
        shop.inventory.script("Release", REFUSED)
        assert state((await client.start("p")).run) == "PARKED"


async def test_a_cancel_that_its_owner_has_not_decided_is_pending_until_it_is(database_url: str, shop: Shop):
    gate = asyncio.Event()
    shop.payments.script("Charge", ScriptedAnswer.ok().once(gate), ScriptedAnswer.ok())
    silent = uuid4()
    async with orchestrator(database_url) as client:
        await client.apply(shop)
        run = (await client.start("k", wait=False)).run
        await shop.payments.called("Charge")
        database = await asyncpg.connect(database_url)
        # Another process owns it from now on, and says nothing.
        await database.execute("INSERT INTO process VALUES ($1, 'silent', now(), now() + interval '1 hour')", silent)
        await database.execute("UPDATE run SET owner = $1, fence = fence + 1 WHERE id = $2", silent, UUID(run.run_id))
        await client.parts.writer.flushed()
        gate.set()
        await eventually(lambda: not client.parts.fleet.runs, what="its former owner has lost it")
        request = pb.CancelRunRequest(run_id=run.run_id, actor="ada", reason="wrong address")
        answer = await client.runs.CancelRun(request, timeout=3)
        assert (answer.pending, state(answer.run)) == (True, "RUNNING")
        shown = await client.run(run.run_id)
        assert [(wish.kind, wish.actor, wish.reason) for wish in shown.wishes] == [("cancel", "ada", "wrong address")]
        await database.execute("UPDATE process SET expires_at = now() - interval '1 s' WHERE id = $1", silent)
        await database.close()
        after = await client.ended(run.run_id)
        assert (state(after), list(after.wishes)) == ("COMPENSATED", [])
        assert "wrong address" in after.message
        assert not (await client.runs.CancelRun(request, timeout=5)).pending


async def test_a_cancel_of_a_run_that_parks_meanwhile_is_refused_for_good(database_url: str, shop: Shop):
    async with orchestrator(database_url) as client:
        await client.apply(shop)
        run = (await parked(client, shop, "k")).run
        database = await asyncpg.connect(database_url)
        silent = uuid4()
        await database.execute("INSERT INTO process VALUES ($1, 'silent', now(), now() + interval '1 hour')", silent)
        await database.execute("UPDATE run SET owner = $1, state = 2 WHERE id = $2", silent, UUID(run.run_id))
        request = pb.CancelRunRequest(run_id=run.run_id, actor="ada", reason="wrong address")
        asked = asyncio.ensure_future(client.runs.CancelRun(request, timeout=3))

        async def is_asked() -> bool:
            return bool(await database.fetchval("SELECT count(*) FROM run_request"))

        await eventually(is_asked)
        await database.execute("UPDATE run SET owner = NULL, state = 3 WHERE id = $1", UUID(run.run_id))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await asked
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        [row] = await database.fetch("SELECT id, accepted, answer FROM run_request")
        assert (row["accepted"], row["answer"].partition(":")[0]) == (False, "PARKED")
        await requests.answer(database, row["id"], RequestReply(True))
        assert await requests.read_answer(database, row["id"]) == RequestReply.of(False, row["answer"])
        await database.close()


async def test_a_run_that_sleeps_in_the_database_is_cancelled_at_once(database_url: str, shop: Shop):
    gate = asyncio.Event()
    shop.payments.script("Charge", ScriptedAnswer.ok().once(gate), ScriptedAnswer.ok())
    async with orchestrator(database_url) as client:
        await client.apply(shop)
        run = (await client.start("k", wait=False)).run
        await shop.payments.called("Charge")
        live = client.parts.fleet.runs.pop(UUID(run.run_id))
        live.leave()
        database = await asyncpg.connect(database_url)
        await database.execute("UPDATE run SET owner = NULL, due_at = now() + interval '1 hour'")
        await database.close()
        gate.set()
        began = asyncio.get_running_loop().time()
        request = pb.CancelRunRequest(run_id=run.run_id, actor="ada", reason="wrong address")
        assert not (await client.runs.CancelRun(request, timeout=10)).pending
        assert asyncio.get_running_loop().time() - began < 5
        assert state(await client.ended(run.run_id)) == "COMPENSATED"


async def test_more_decisions_than_connections_at_once_do_not_wait_for_each_other(database_url: str, shop: Shop):
    async with orchestrator(database_url) as client:
        await client.apply(shop)
        runs = [(await parked(client, shop, f"k{i}")).run for i in range(4)]
        await client.apply_saga((EXAMPLE / "saga.yaml").read_text().replace("60s", "61s"))
    shop.payments.script("Refund", ScriptedAnswer.ok())
    async with orchestrator(database_url, database_pool=2) as other:  # it has not read the former definition yet
        decisions = [other.runs.ResolveRun(resolve(run.run_id, run.parked.seq), timeout=15) for run in runs]
        answers = await asyncio.gather(*decisions)
        assert not any(answer.run.HasField("input") for answer in answers)
        for run in runs:
            assert state(await other.ended(run.run_id)) == "COMPENSATED"


async def test_payloads_that_do_not_fit_are_named_and_read_one_by_one(database_url: str, shop: Shop):
    shop.payments.script("Charge", ScriptedAnswer.ok(ChargeResponse(payment_id="p" * 300_000)))
    shop.shipping.script("Book", ScriptedAnswer.ok(BookResponse(tracking_id="ü" * 150_000)))
    async with orchestrator(database_url) as client:
        await client.apply(shop)
        run_id = (await client.start("k")).run.run_id
        plain = await client.run(run_id)
        assert dict(plain.steps[1].response) == {"@omitted": "300,004 bytes"}
        assert (plain.input["cardToken"], plain.input_json) == ("[REDACTED]", "")
        request = pb.GetRunRequest(run_id=run_id, payloads=pb.PAYLOADS_TEXT)
        text = (await client.runs.GetRun(request)).run
        assert text.steps[2].response_json == '{"@omitted": "300,004 bytes"}'
        assert not text.HasField("input")
        assert '"quantity": 2' in text.input_json
        assert next(iter(json.loads(text.input_json))) == "orderId"
        request.payloads = pb.PAYLOADS_NONE
        none = (await client.runs.GetRun(request)).run
        assert not none.HasField("input")
        assert not none.input_json
        watched = [answer async for answer in client.runs.WatchRun(pb.WatchRunRequest(run_id=run_id))]
        assert dict(watched[-1].run.steps[1].response) == {"@omitted": "300,004 bytes"}

        async def payload(step: str) -> dict[str, Any]:
            pieces = client.runs.ReadPayload(pb.ReadPayloadRequest(run_id=run_id, step=step))
            return json.loads("".join([piece.text async for piece in pieces]))

        assert await payload("charge") == {"paymentId": "p" * 300_000}
        assert await payload("ship") == {"trackingId": "ü" * 150_000}
        assert (await payload(""))["cardToken"] == "[REDACTED]"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await payload("none")
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_json_is_taken_as_text_with_exact_integers_and_refused_in_words(database_url: str, shop: Shop):
    async with orchestrator(database_url) as client:
        await client.apply(shop)
        exact = 2**53 + 1
        given = INPUT | {"total": {"currency": "EUR", "minor": exact}}
        request = pb.StartRunRequest(namespace="shop", saga="place-order", idempotency_key="k", wait=True)
        request.json_text = json.dumps(given)
        answer = await client.runs.StartRun(request, timeout=20)
        [charge] = shop.payments.calls("Charge")
        assert charge.request.amount.minor == exact  # type: ignore[attr-defined]
        same = pb.StartRunRequest(namespace="shop", saga="place-order", idempotency_key="k")
        same.json.update(INPUT | {"total": {"currency": "EUR", "minor": str(exact)}})
        assert (await client.runs.StartRun(same)).run.run_id == answer.run.run_id
        rounded = pb.StartRunRequest(namespace="shop", saga="place-order", idempotency_key="r")
        rounded.json.update(given)
        large = pb.StartRunRequest(namespace="shop", saga="place-order", idempotency_key="l")
        large.json_text = json.dumps(INPUT | {"orderId": "x" * 300_000})
        for wrong, says in ((rounded, "total.minor"), (large, "at most 262,144")):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await client.runs.StartRun(wrong)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert says in (refused.value.details() or "")


async def test_what_a_participant_says_is_kept_as_one_line_that_does_nothing(database_url: str, shop: Shop):
    said = "no slot\x1b]0;title\x07\n7 ended COMPLETED\u202e\0"
    shop.shipping.script(
        "Book", ScriptedAnswer.refused(grpc.StatusCode.FAILED_PRECONDITION, reason="NO_SLOT", text=said)
    )
    async with orchestrator(database_url) as client:
        await client.apply(shop)
        run = (await client.start("k")).run
        assert state(run) == "COMPENSATED"
        shown = [run.message, *(event.message for event in await client.timeline(run.run_id))]
        assert any("no slot\\x1b]0;title\\x07\\n7 ended" in text for text in shown)
        assert not any(UNSAFE.search(text) for text in shown)


async def test_who_and_why_are_one_line_that_a_terminal_shows_as_it_is(database_url: str):
    async with orchestrator(database_url) as client:
        for text in ("a\x1b[31m", "a\nb", "a\u202eb", "a\u2028b", " ", "", "\0"):
            for actor, reason in ((text, "because"), ("ada", text)):
                request = pb.CancelRunRequest(run_id=str(uuid4()), actor=actor, reason=reason)
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await client.runs.CancelRun(request)
                assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT, (actor, reason)


class Counted:
    """A pool that counts its statements."""

    def __init__(self, pool: Any) -> None:
        self.statements = 0
        self._pool = pool

    async def fetch(self, *arguments: Any) -> Any:
        self.statements += 1
        return await self._pool.fetch(*arguments)


async def test_all_watchers_of_a_run_share_one_look_and_hear_of_its_next_record(
    journal: Journal, connection: asyncpg.Connection
):
    tail = await journal.run()
    counted = Counted(connection)
    watching = WatchedRuns(counted, most=500)

    async def watch() -> None:
        with watching.watching(tail.id) as watched:
            await watching.more(watched, 1)

    watchers = [asyncio.create_task(watch()) for _ in range(500)]
    looking = asyncio.create_task(watching.run())
    await eventually(lambda: counted.statements >= 3)
    with pytest.raises(ResourceExhausted), watching.watching(tail.id):
        raise AssertionError("one more than there may be")
    assert not any(task.done() for task in watchers)
    journal.append(tail, 2)
    await asyncio.wait_for(asyncio.gather(*watchers), 10)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    assert counted.statements < 50
    with watching.watching(tail.id) as watched:
        assert watched.watchers == 1


async def test_a_wish_is_kept_for_whoever_owns_the_run(connection: asyncpg.Connection):
    run = uuid4()
    first = await requests.ask(connection, run, RequestKind.CANCEL, "ada", "a")
    await requests.ask(connection, run, RequestKind.PARK, "bob", "b")
    assert [(asked.kind, asked.actor) for asked in await requests.open_of(connection, run)] == [
        (RequestKind.CANCEL, "ada"),
        (RequestKind.PARK, "bob"),
    ]
    await requests.answer(connection, first, RequestReply(False, "PAST_PIVOT", "too late"))
    await requests.answer(connection, first, RequestReply(True))
    assert await requests.read_answer(connection, first) == RequestReply(False, "PAST_PIVOT", "too late")
    assert [asked.actor for asked in await requests.open_of(connection, run)] == ["bob"]


async def test_the_owner_of_runs_reads_what_is_open_about_them_and_the_first_cancel_of_each(
    journal: Journal, connection: asyncpg.Connection
):
    mine, others = (await journal.start()).run_id, (await journal.start(owned=False)).run_id
    ids = [
        await requests.ask(connection, run, kind, actor, f"because {actor}")
        for run, kind, actor in (
            (mine, RequestKind.CANCEL, "refused"),
            (mine, RequestKind.PARK, "parks"),
            (mine, RequestKind.CANCEL, "first"),
            (mine, RequestKind.CANCEL, "second"),
            (others, RequestKind.CANCEL, "other"),
        )
    ]
    await requests.answer(connection, ids[0], RequestReply(False, "PAST_PIVOT", "too late"))
    parks = RunRequest(ids[1], mine, RequestKind.PARK, "parks", "because parks")
    first = RunRequest(ids[2], mine, RequestKind.CANCEL, "first", "because first")
    second = RunRequest(ids[3], mine, RequestKind.CANCEL, "second", "because second")
    other = RunRequest(ids[4], others, RequestKind.CANCEL, "other", "because other")
    assert await requests.open_requests(connection, journal.process) == [parks, first, second]
    assert await requests.cancels_of(connection, [mine, others, uuid4()]) == {mine: first, others: other}
    assert await requests.cancels_of(connection, [others]) == {others: other}
    assert [asked.actor for asked in await requests.open_of(connection, mine)] == ["parks", "first", "second"]


def failure(run: run_pb2.Run) -> tuple[str, str, str, str]:
    return run.failure.cause, run.failure.step, run.failure.code, run.failure.reason


async def test_why_a_run_was_undone_is_told_to_programs_by_every_owner(database_url: str, shop: Shop):
    said = {}
    async with orchestrator(database_url) as client:
        await client.apply(shop)
        completed = (await client.start("completed")).run
        assert not completed.HasField("failure")
        shop.payments.script("Charge", DECLINED)
        said["declined"] = (await client.start("declined")).run
        shop.payments.script("Charge", AWAY)
        said["away"] = (await client.start("away")).run
        shop.payments.script("Charge", ScriptedAnswer.ok())
        shop.shipping.script("Book", AWAY)
        said["pivot"] = (await client.start("pivot")).run
        gate = asyncio.Event()
        shop.payments.script("Charge", ScriptedAnswer.ok().once(gate), ScriptedAnswer.ok())
        cancelled = (await client.start("cancelled", wait=False)).run
        await client.runs.CancelRun(pb.CancelRunRequest(run_id=cancelled.run_id, actor="ada", reason="wrong"))
        gate.set()
        said["cancelled"] = await client.ended(cancelled.run_id)
        shop.payments.script("Charge", DECLINED)
        shop.inventory.script("Release", REFUSED)
        said["parked"] = (await client.start("parked")).run
        assert {name: failure(run) for name, run in said.items()} == {
            "declined": ("REJECTED", "charge", "FAILED_PRECONDITION", "CARD_DECLINED"),
            "away": ("EXHAUSTED", "charge", "UNAVAILABLE", ""),
            "pivot": ("EXHAUSTED", "ship", "UNAVAILABLE", ""),
            "cancelled": ("CANCELLED", "", "", ""),
            "parked": ("REJECTED", "charge", "FAILED_PRECONDITION", "CARD_DECLINED"),
        }
        assert (state(said["parked"]), said["parked"].parked.step) == ("PARKED", "reserve")
    async with orchestrator(database_url) as client:
        for name, run in said.items():
            assert failure(await client.run(run.run_id)) == failure(run), name
        assert not (await client.run(completed.run_id)).HasField("failure")
