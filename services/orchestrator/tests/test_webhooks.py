"""Deliveries on a real Postgres to real HTTPS servers: order, retries, parking, decisions, replay, and who hangs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest
from amends_chassis.followed import FollowedFile
from amends_orchestrator.announcer import Announcer
from amends_orchestrator.journal.telling import and_tell
from amends_orchestrator.runner.ports import RunInfo
from amends_orchestrator.webhooks import deliveries
from amends_orchestrator.webhooks.destinations import Destinations, parse
from amends_orchestrator.webhooks.sender import Manner, WebhookSender
from amends_resilience import Backoff
from amends_testkit.receiver import HANG, Receiver, receiving, verifies, write_settings
from amends_testkit.waiting import eventually
from google.protobuf import json_format

from amends.events.v1.cloud_event_pb2 import CloudEvent

QUICK = Manner(
    within=timedelta(seconds=2),
    written_within=timedelta(seconds=1),
    pauses=Backoff(initial=timedelta(milliseconds=10), maximum=timedelta(milliseconds=40)),
)
TELL = and_tell("SELECT $1::bigint AS version", 1)


class Office:
    """What tells of runs, with as many senders as a test wants."""

    def __init__(self, pool: asyncpg.Pool, path: Path) -> None:
        self.pool = pool
        self.path = path
        self.versions: dict[UUID, int] = {}
        self.senders: list[WebhookSender] = []

    def file(self) -> FollowedFile[Destinations]:
        return FollowedFile(self.path, parse)

    @asynccontextmanager
    async def sending(self, manner: Manner = QUICK) -> AsyncIterator[asyncio.Event]:
        """Run a replica's sender; setting the event that is yielded drains it."""
        draining = asyncio.Event()
        sender = WebhookSender(self.pool, self.file(), draining, manner)
        self.senders.append(sender)
        task = asyncio.create_task(sender.run())
        try:
            yield draining
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def tell(self, run: UUID, digest: bytes = b"d") -> None:
        """Commit an event of a run."""
        wanted = self.senders[0].wanted if self.senders else self.file().current.wanted
        info = RunInfo(run, "shop", "place-order", f"key of {run}", "", None)
        told = Announcer(wanted=wanted).started(info, digest)
        self.versions[run] = self.versions.get(run, 0) + 1
        if told is not None:
            await self.pool.execute(TELL, self.versions[run], *told.values)

    async def states(self, webhook: str = "on-call") -> list[str]:
        rows = await self.pool.fetch("SELECT state FROM webhook_delivery WHERE webhook = $1 ORDER BY seq", webhook)
        return [row["state"] for row in rows]

    async def waits(self) -> list[bool]:
        """Whether each event, in order, is put off until the one before it has ended."""
        rows = await self.pool.fetch("SELECT due_at = 'infinity' AS waits FROM webhook_delivery ORDER BY seq")
        return [row["waits"] for row in rows]

    async def come_to(self, *states: str, webhook: str = "on-call") -> None:
        async def look() -> bool:
            found = await self.states(webhook)
            assert found == [*states], found
            return True

        await eventually(look, what=f"deliveries come to {states}")


OpenOffice = Callable[..., AbstractAsyncContextManager[Office]]


@pytest.fixture
async def office(journal_url: str, tmp_path: Path) -> AsyncIterator[OpenOffice]:
    async with asyncpg.create_pool(journal_url, min_size=1, max_size=6) as pool:

        @asynccontextmanager
        async def opened(*receivers: Receiver, **fields: object) -> AsyncIterator[Office]:
            entries = [receiver.entry(**fields) for receiver in receivers]
            yield Office(pool, write_settings(tmp_path / "webhooks.json", *entries))

        yield opened


def sequence(receiver: Receiver, run: UUID) -> list[str]:
    return [got.event["sequence"] for got in receiver.received if got.event["subject"] == str(run)]


async def test_an_event_arrives_signed_as_a_cloud_event_in_json(office, tmp_path):
    run = uuid4()
    async with receiving(tmp_path) as receiver, office(receiver) as desk, desk.sending():
        await desk.tell(run, bytes.fromhex("abcd"))
        await desk.come_to("delivered")
    [got] = receiver.received
    assert verifies(receiver.secret, got.headers, got.body)
    assert got.target == "/hook?key=hidden"
    assert got.headers["content-type"].startswith("application/cloudevents+json")
    assert got.headers["webhook-id"] == got.event["id"]
    assert abs(int(got.headers["webhook-timestamp"]) - datetime.now(UTC).timestamp()) < 60
    event = json_format.Parse(got.body, CloudEvent())  # by the contract of the JSON form
    assert (event.specversion, event.type, event.subject) == ("1.0", "amends.events.v1.RunStarted", str(run))
    assert (event.sequence, event.correlationid, event.datacontenttype) == ("1", str(run), "application/json")
    named = {"namespace": "shop", "saga": "place-order", "idempotencyKey": f"key of {run}"}
    assert json_format.MessageToDict(event.data) == {"runId": str(run), "run": named, "digest": "abcd"}


async def test_what_fails_is_tried_again_with_the_same_id_and_body_and_events_of_a_run_keep_their_order(
    office, tmp_path
):
    first, second = uuid4(), uuid4()
    async with receiving(tmp_path) as receiver, office(receiver) as desk:
        receiver.script(500, 429, b"nonsense")
        for _ in range(3):
            await desk.tell(first)
        await desk.tell(second)
        async with desk.sending(), desk.sending():  # two replicas
            await desk.come_to(*["delivered"] * 4)
    assert list(dict.fromkeys(sequence(receiver, first))) == ["1", "2", "3"]
    assert sequence(receiver, first) == sorted(sequence(receiver, first))
    attempts = [got for got in receiver.received if got.event["subject"] == str(first)]
    again = [got for got in attempts if got.headers["webhook-id"] == attempts[0].headers["webhook-id"]]
    assert len({got.body for got in again}) == 1
    assert len(receiver.received) == 4 + 3


async def test_an_event_that_is_tried_too_often_is_parked_with_those_of_its_run_and_no_others(office, tmp_path):
    run, other = uuid4(), uuid4()
    async with receiving(tmp_path) as receiver, office(receiver, attempts=3) as desk, desk.sending():
        receiver.script(500, 500, 500)
        await desk.tell(run)
        await desk.come_to("parked")
        await desk.tell(run)
        await desk.tell(run)
        await desk.tell(other)
        await desk.come_to("parked", "due", "due", "delivered")
        [row] = await deliveries.list_parked(desk.pool, "", 10)
        assert (row["attempts"], row["behind"], row["detail"]) == (3, 2, "it answered 500")
        # A person has it tried again: it and those behind it go in order.
        receiver.received.clear()
        assert await deliveries.decide(desk.pool, "on-call", row["event_id"], "retry", "ada", "mended")
        await desk.come_to(*["delivered"] * 4)
    assert sequence(receiver, run) == ["1", "2", "3"]


async def test_a_parked_event_is_left_out_by_a_person_and_those_behind_it_go_on(office, tmp_path):
    run = uuid4()
    async with receiving(tmp_path) as receiver, office(receiver) as desk, desk.sending():
        receiver.script(410)
        await desk.tell(run)
        await desk.come_to("parked")  # whoever is gone is not asked again
        await desk.tell(run)
        [row] = await deliveries.list_parked(desk.pool, "on-call", 10)
        assert not await deliveries.decide(desk.pool, "other", row["event_id"], "skip", "ada", "it is wrong")
        assert await deliveries.decide(desk.pool, "on-call", row["event_id"], "skip", "ada", "it is wrong")
        assert not await deliveries.decide(desk.pool, "on-call", row["event_id"], "skip", "ada", "once more")
        await desk.come_to("skipped", "delivered")
        kept = await desk.pool.fetchrow("SELECT decision, decided_by, decided_because FROM webhook_delivery LIMIT 1")
        assert tuple(kept) == ("skip", "ada", "it is wrong")
    assert sequence(receiver, run) == ["1", "2"]


async def test_what_was_delivered_is_sent_again_in_its_order_when_it_is_replayed(office, tmp_path):
    run, other = uuid4(), uuid4()
    async with receiving(tmp_path) as receiver, office(receiver) as desk, desk.sending():
        for _ in range(3):
            await desk.tell(run)
        await desk.tell(other)
        await desk.come_to(*["delivered"] * 4)
        receiver.received.clear()
        assert await deliveries.replay(desk.pool, "on-call", datetime.now(UTC), "") == 0
        past = datetime.now(UTC) - timedelta(hours=1)
        assert await deliveries.replay(desk.pool, "on-call", past, str(run)) == 3
        await desk.come_to(*["delivered"] * 4)
        assert sequence(receiver, run) == ["1", "2", "3"]
        assert sequence(receiver, other) == []
        assert await deliveries.replay(desk.pool, "on-call", past, "") == 4
        await desk.come_to(*["delivered"] * 4)
    assert sequence(receiver, other) == ["1"]


async def test_one_that_hangs_delays_no_other(office, tmp_path):
    manner = Manner(within=timedelta(seconds=30), pauses=QUICK.pauses)
    async with (
        receiving(tmp_path, "hangs") as hangs,
        receiving(tmp_path, "well") as well,
        office(hangs, well) as desk,
        desk.sending(manner),
    ):
        hangs.script(*[HANG] * 50)
        for _ in range(20):
            await desk.tell(uuid4())
        await desk.come_to(*["delivered"] * 20, webhook="well")
        assert set(await desk.states("hangs")) == {"due"}
        assert len(hangs.received) == 4  # at once, and no more


async def test_each_gets_what_it_wants_and_a_new_one_what_comes_after_it(office, tmp_path):
    async with receiving(tmp_path) as receiver, receiving(tmp_path, "later") as later:
        async with office(receiver, types=["RunParked"]) as desk:
            await desk.tell(uuid4())
            assert await desk.states() == []
        async with office(receiver) as desk, desk.sending():
            await desk.tell(uuid4())
            await desk.come_to("delivered")
            write_settings(desk.path, receiver.entry(), later.entry(namespaces=["shop"]))

            async def told_both() -> bool:
                await desk.tell(uuid4())
                return bool(await desk.states("later"))

            await eventually(told_both, what="the file is read again")
            await eventually(lambda: later.received)
            assert len(await desk.states("later")) < len(await desk.states())


async def test_a_sender_that_stops_in_the_middle_leaves_its_events_to_the_next(office, tmp_path):
    run = uuid4()
    async with receiving(tmp_path) as receiver, office(receiver) as desk:
        receiver.script(HANG)
        await desk.tell(run)
        await desk.tell(run)
        async with desk.sending(Manner(within=timedelta(seconds=30), written_within=timedelta(hours=1))):
            await eventually(lambda: receiver.received)
        # Its lease would stand for an hour: it was given back.
        async with desk.sending():
            await desk.come_to("delivered", "delivered")
    assert sequence(receiver, run) == ["1", "1", "2"]


async def test_a_sender_that_drains_ends_what_it_has_begun_and_takes_nothing_more(office, tmp_path):
    manner, draining = Manner(within=timedelta(milliseconds=300)), asyncio.Event()
    async with receiving(tmp_path) as receiver, office(receiver) as desk:
        receiver.script(HANG)
        await desk.tell(uuid4())
        sender = asyncio.create_task(WebhookSender(desk.pool, desk.file(), draining, manner).run())
        await eventually(lambda: receiver.received)
        draining.set()
        await desk.tell(uuid4())
        await asyncio.wait_for(sender, 10)
        attempts = await desk.pool.fetch("SELECT attempts, detail FROM webhook_delivery ORDER BY seq")
        assert [tuple(row) for row in attempts] == [(1, "there was no answer within 0.3 s"), (0, "")]
        assert len(receiver.received) == 1


async def test_who_was_slower_than_the_lease_writes_nothing_over_who_was_later(office, tmp_path):
    async with receiving(tmp_path) as receiver, office(receiver) as desk:
        await desk.tell(uuid4())
        [slow] = await deliveries.take(desk.pool, "on-call", 10, timedelta(milliseconds=1))
        [later] = await eventually(lambda: deliveries.take(desk.pool, "on-call", 10, timedelta(minutes=1)))
        assert (slow.seq, later.attempts) == (later.seq, slow.attempts + 1)
        assert not await deliveries.failed(desk.pool, slow, "it answered 500", timedelta(hours=1))
        assert not await deliveries.parked(desk.pool, slow, "it answered 410")
        assert not await deliveries.delivered(desk.pool, slow, "it answered 200")
        assert await deliveries.delivered(desk.pool, later, "it answered 200")
        assert await deliveries.take(desk.pool, "on-call", 10, timedelta(minutes=1)) == []


async def test_while_the_first_of_a_run_is_under_way_or_put_off_nothing_behind_it_is_taken(office, tmp_path):
    run, minute = uuid4(), timedelta(minutes=1)
    async with receiving(tmp_path) as receiver, office(receiver) as desk:
        for _ in range(3):
            await desk.tell(run)
        [first] = await deliveries.take(desk.pool, "on-call", 10, minute)
        assert await deliveries.take(desk.pool, "on-call", 10, minute) == []
        assert await deliveries.failed(desk.pool, first, "it answered 500", timedelta())
        [again] = await deliveries.take(desk.pool, "on-call", 10, minute)
        assert (again.seq, again.failures) == (first.seq, 1)
        assert await deliveries.failed(desk.pool, again, "it answered 500", timedelta(hours=1))
        assert await deliveries.take(desk.pool, "on-call", 10, minute) == []


async def test_what_waits_behind_another_one_costs_nothing_until_that_has_ended(office, tmp_path):
    run, minute = uuid4(), timedelta(minutes=1)
    async with receiving(tmp_path) as receiver, office(receiver) as desk:
        for _ in range(3):
            await desk.tell(run)
        [first] = await deliveries.take(desk.pool, "on-call", 10, minute)
        assert await desk.waits() == [False, True, True]
        await deliveries.delivered(desk.pool, first, "it answered 200")
        assert await desk.waits() == [False, False, True]
        [second] = await deliveries.take(desk.pool, "on-call", 10, minute)
        await deliveries.parked(desk.pool, second, "it answered 410")
        assert await deliveries.take(desk.pool, "on-call", 10, minute) == []
        # Somebody removes the row that the last one waits for.
        await desk.pool.execute("DELETE FROM webhook_delivery WHERE state = 'parked'")
        assert await deliveries.take(desk.pool, "on-call", 10, minute) == []
        await deliveries.wake(desk.pool)
        assert len(await deliveries.take(desk.pool, "on-call", 10, minute)) == 1


async def test_an_event_is_never_forgotten_behind_one_that_ends_at_the_same_moment(office, tmp_path):
    """Whoever puts off what waits, and whoever releases it, do so at once, in many tries."""
    minute = timedelta(minutes=1)
    async with receiving(tmp_path) as receiver, office(receiver) as desk:
        for _ in range(40):
            run = uuid4()
            await desk.tell(run)
            [first] = await deliveries.take(desk.pool, "on-call", 1, minute)
            await desk.tell(run)
            _, taken, others = await asyncio.gather(
                deliveries.delivered(desk.pool, first, "it answered 200"),
                deliveries.take(desk.pool, "on-call", 10, minute),
                deliveries.take(desk.pool, "on-call", 10, minute),
            )
            left = await deliveries.take(desk.pool, "on-call", 10, minute)
            [second] = [*taken, *others, *left]
            await deliveries.delivered(desk.pool, second, "it answered 200")
        assert set(await desk.states()) == {"delivered"}


async def test_what_ended_long_ago_is_forgotten_and_what_is_open_never(office, tmp_path):
    async with receiving(tmp_path) as receiver, office(receiver) as desk:
        for _ in range(3):
            await desk.tell(uuid4())
        one, two, _ = await deliveries.take(desk.pool, "on-call", 10, timedelta(minutes=1))
        await deliveries.delivered(desk.pool, one, "it answered 200")
        await deliveries.parked(desk.pool, two, "it answered 410")
        assert await deliveries.expire(desk.pool, timedelta(days=7), ["on-call"]) == 0
        assert await deliveries.expire(desk.pool, timedelta(), ["on-call"]) == 1
        assert await desk.states() == ["parked", "due"]


async def test_what_is_open_for_a_webhook_that_nobody_names_any_more_is_forgotten_when_it_is_old(office, tmp_path):
    async with receiving(tmp_path) as receiver, office(receiver) as desk:
        await desk.tell(uuid4())
        await desk.tell(uuid4())
        [parked, _] = await deliveries.take(desk.pool, "on-call", 10, timedelta(minutes=1))
        await deliveries.parked(desk.pool, parked, "it answered 410")
        assert await deliveries.expire(desk.pool, timedelta(days=7), []) == 0
        assert await deliveries.expire(desk.pool, timedelta(), []) == 2
        assert await desk.states() == []
