"""What is for who is on call: decisions that are kept, lag, replays, and a broker that lost its store."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest
from amends_events import Silent, Topic, TopicError, event_type
from amends_events import partition as reading
from amends_events import relay as relays
from amends_events.backlog import count_waiting, expire_sent, list_waiting, republish, skip_waiting
from amends_events.decisions import DecidedBy, DecisionError, list_decisions
from amends_events.lag import ReadingState, list_lag
from amends_events.parked import ParkedDecision, ParkedFilter, ParkedPlace, count_behind, get_parked, list_parked
from amends_events.replay import ReplayStart, ids_to_forget, plan_replay
from amends_testkit.waiting import eventually

from shop.payments.events.v1.payments_pb2 import PaymentTaken

from .conftest import RETENTION
from .world import SOURCE, TOPIC, consuming, decide, effects, outbox, own_nats, pay, record, relaying, replay

TYPE = event_type(PaymentTaken)
ADA = DecidedBy("ada", "the disk was full", "spiffe://amends.local/ns/people/sa/ada")
KEEP = timedelta(days=1)
HOME = TYPE.topic.partition_of("o-1")


@pytest.fixture(autouse=True)
def _hurried(monkeypatch):
    monkeypatch.setattr(reading, "BACKOFF", replace(reading.BACKOFF, initial=timedelta(milliseconds=2)))
    monkeypatch.setattr(reading, "LOOK_EVERY", timedelta(milliseconds=20))
    monkeypatch.setattr(reading, "WAIT", timedelta(milliseconds=50))
    monkeypatch.setattr(relays, "BACKOFF", replace(relays.BACKOFF, maximum=timedelta(milliseconds=100)))


async def log(broker, *records) -> None:
    await broker.ensure([TYPE.topic], RETENTION)
    for one in records:
        await broker.append(TOPIC, TYPE.topic.partition_of(one.attributes["subject"]), [one])


async def handled(pool, count: int) -> list[tuple[str, int]]:
    async def look():
        return len(await effects(pool)) >= count

    await eventually(look, what=f"{count} effects")
    return await effects(pool)


async def poisoned(connection, event, message) -> None:
    raise RuntimeError("poison")


async def parked(pool, count: int):
    async def look():
        return len(await list_parked(pool)) == count

    await eventually(look, what=f"{count} parked events")
    return await list_parked(pool)


async def place(pool, broker, partition: int = HOME):
    return next(one for one in await list_lag(pool, broker, "test", TOPIC) if one.partition == partition)


async def test_parked_events_are_listed_in_pages_by_what_is_asked_for_and_named_by_their_place(pool, nats_broker):
    await log(nats_broker, *(record(version, key) for version in (1, 2) for key in ("o-1", "o-2", "o-3")))
    async with consuming(pool, nats_broker, poisoned):
        everything = await parked(pool, 6)
    assert await list_parked(pool, limit=4) + await list_parked(pool, after=everything[3].place) == everything
    assert {one.key for one in await list_parked(pool, ParkedFilter(key="o-2"))} == {"o-2"}
    assert await list_parked(pool, ParkedFilter("another")) == []
    first = await list_parked(pool, ParkedFilter(decidable=True))
    assert {one.key for one in first} == {"o-1", "o-2", "o-3"}
    assert [await count_behind(pool, one) for one in first] == [1, 1, 1]
    assert {str(ParkedPlace.parse(str(one.place))) for one in everything} == {str(one.place) for one in everything}
    event, found = await get_parked(pool, first[0].place)
    assert (event, found.attributes["subject"]) == (first[0], first[0].key)
    with pytest.raises(ValueError, match="is not CONSUMER/TOPIC/PARTITION/POSITION"):
        ParkedPlace.parse("test/1/2")


async def test_what_was_decided_is_kept_with_who_and_why_also_when_it_did_not_help(pool, nats_broker):
    await log(nats_broker, record(1))
    async with consuming(pool, nats_broker, poisoned):
        (event,) = await parked(pool, 1)
        await decide(pool, event, ParkedDecision.RETRY, "ada", "the handler is mended")

        async def failed_again():
            return (await list_parked(pool))[0].attempts > event.attempts

        await eventually(failed_again)
        await decide(pool, event, ParkedDecision.SKIP, "bob", "a test order")
        await parked(pool, 0)
    found = [(one.decision, one.subject, one.actor, one.reason) for one in await list_decisions(pool)]
    name = str(event.place)
    assert found == [("skip", name, "bob", "a test order"), ("retry", name, "ada", "the handler is mended")]
    newest = (await list_decisions(pool, limit=1))[0]
    assert [one.actor for one in await list_decisions(pool, before=newest.decision_id)] == ["ada"]


async def test_where_a_consumer_is_says_how_far_behind_who_reads_and_what_is_blocked(pool, broker):
    await log(broker, record(1), record(2))
    async with consuming(pool, broker, poisoned) as consumer:
        await parked(pool, 2)
        found = await place(pool, broker)
        assert (found.position, found.lag, found.blocked_keys, found.state) == (2, 0, 1, ReadingState.READING)
        assert found.owner == consumer.owner
    await log(broker, record(3))
    found = await place(pool, broker)
    assert (found.lag, found.owner, found.state) == (1, None, ReadingState.UNOWNED)
    assert len(await list_lag(pool, broker)) == TYPE.topic.partitions


async def test_who_lets_go_of_a_partition_says_nothing_of_it_any_more(pool, nats_broker):
    """Two processes would say different things of one partition, and an alert would never end."""
    told: dict[tuple, int] = {}

    class Telling(Silent):
        def keys_blocked(self, consumer, topic, number, keys):
            told[topic, number] = keys

    await log(nats_broker, record(1))
    async with consuming(pool, nats_broker, poisoned, meter=Telling()):
        await parked(pool, 1)
        await eventually(lambda: told.get((TOPIC, HOME)) == 1)
    assert set(told.values()) == {0}


async def test_a_consumer_whose_log_has_forgotten_goes_on_at_the_oldest_event_when_a_person_moves_it(pool, tmp_path):
    async with own_nats(tmp_path) as (_, broker):
        await log(broker, record(1))
        async with consuming(pool, broker):
            await handled(pool, 1)
        await log(broker, *(record(version) for version in (2, 3, 4)))
        await broker._ask(f"$JS.API.STREAM.PURGE.shop-payments-events-v1-{HOME}", {"seq": 4})
        async with consuming(pool, broker) as consumer:
            await eventually(lambda: any(one.lost for one in consumer.partitions))
            assert (await place(pool, broker)).state is ReadingState.POSITION_LOST
            (move,) = await plan_replay(pool, broker, "test", TYPE.topic, ReplayStart(1))
            assert (move.position, move.back_to, move.lost) == (1, 3, 2)
            await replay(pool, [move], ADA)
        async with consuming(pool, broker):
            assert await handled(pool, 2) == [("o-1", 1), ("o-1", 4)]
    (decision,) = await list_decisions(pool)
    assert (decision.identity, decision.effect) == (
        ADA.identity,
        f"partition {HOME}: from 1 to 3 (0 to be read again, 2 lost)",
    )


async def test_a_broker_that_lost_its_store_is_given_again_what_was_published(pool, events_url, tmp_path):
    """E8: consumers stop; what was published comes first, then what waited; each has its effect once and in order."""
    box, folder = outbox(), tmp_path / "nats"
    began = datetime.now(UTC)
    async with own_nats(folder) as (_, broker), relaying(events_url, box, broker, keeps=True):
        await broker.ensure([TYPE.topic], RETENTION)
        async with consuming(pool, broker):
            await pay(pool, box, "o-1")
            await handled(pool, 1)
        for _ in range(2):
            await pay(pool, box, "o-1")

        async def published():
            return await count_waiting(pool) == 0

        await eventually(published)
    shutil.rmtree(folder)
    async with own_nats(folder) as (_, broker), relaying(events_url, box, broker, keeps=True):
        async with consuming(pool, broker) as consumer:
            await pay(pool, box, "o-1")
            await eventually(lambda: any(one.lost for one in consumer.partitions))
            assert (await place(pool, broker)).state is ReadingState.POSITION_LOST
            async with pool.acquire() as connection:
                assert (await republish(connection, TOPIC, began, KEEP, ADA)).events == 3
            await broker.ensure([TYPE.topic], RETENTION)

            async def again():
                return (await broker.ends(TOPIC))[HOME].last == 4

            await eventually(again)
            moves = await plan_replay(pool, broker, "test", TYPE.topic, ReplayStart(0))
            await replay(pool, moves, ADA)
        async with consuming(pool, broker):
            assert await handled(pool, 4) == [("o-1", version) for version in (1, 2, 3, 4)]


async def test_only_what_is_kept_can_be_published_again_and_it_is_forgotten_in_its_time(pool, events_url, nats_broker):
    box = outbox()
    await nats_broker.ensure([TYPE.topic], RETENTION)
    async with relaying(events_url, box, nats_broker, keeps=True):
        await pay(pool, box, "o-1")

        async def kept():
            return await pool.fetchval("SELECT count(*) FROM outbox_sent") == 1

        await eventually(kept)
    async with pool.acquire() as connection:
        for keep, since in ((timedelta(), datetime.now(UTC)), (KEEP, datetime.now(UTC) - 2 * KEEP)):
            with pytest.raises(DecisionError) as refused:
                await republish(connection, TOPIC, since, keep, ADA)
            assert refused.value.reason == "NOT_KEPT"
        assert await expire_sent(connection, KEEP, 10) == 0
        assert await expire_sent(connection, timedelta(0), 10) == 1


async def test_an_event_that_no_broker_takes_is_left_out_and_kept_with_the_decision(pool):
    box = outbox()
    await pay(pool, box, "o-1")
    (event,) = await list_waiting(pool)
    async with pool.acquire() as connection:
        assert await skip_waiting(connection, SOURCE, event.event_id, ADA) == event
        with pytest.raises(DecisionError):
            await skip_waiting(connection, SOURCE, event.event_id, ADA)
    assert await list_waiting(pool) == []
    row = await pool.fetchrow("SELECT decision, attributes->>'subject' AS key, payload FROM event_decision")
    assert (row["decision"], row["key"]) == ("skip-outbox", "o-1")
    assert PaymentTaken.FromString(row["payload"]).order_id == "o-1"


async def test_what_is_forgotten_is_handled_again_by_a_replay(pool, broker):
    await log(broker, record(1), record(2))
    async with consuming(pool, broker):
        await handled(pool, 2)
        moves = await plan_replay(pool, broker, "test", TYPE.topic, ReplayStart(2, key="o-1"))
        forget = await ids_to_forget(broker, TYPE.topic, moves, "o-1")
        assert len(forget) == 1
        await replay(pool, moves, ADA, forget=forget)
    async with consuming(pool, broker):
        assert await handled(pool, 3) == [("o-1", 1), ("o-1", 2), ("o-1", 2)]


async def test_a_replay_of_a_consumer_that_is_not_there_is_refused(pool, nats_broker):
    await nats_broker.ensure([TYPE.topic], RETENTION)
    with pytest.raises(DecisionError) as refused:
        await plan_replay(pool, nats_broker, "nobody", TYPE.topic, ReplayStart(1))
    assert refused.value.reason == "CONSUMER_UNKNOWN"


async def test_an_event_parked_in_a_log_that_is_no_more_makes_room_for_the_one_at_its_position(pool, nats_broker):
    """Positions begin anew; neither event is lost, and those of the old log are still the first of their key."""
    await log(nats_broker, record(1), record(2, "o-1"))
    async with consuming(pool, nats_broker, poisoned):
        old = await parked(pool, 2)
    await pool.execute("UPDATE inbox_parked SET event_id = gen_random_uuid()")
    await pool.execute("DELETE FROM inbox")
    await pool.execute("UPDATE inbox_position SET position = 0, event_id = NULL")
    async with consuming(pool, nats_broker, poisoned):
        found = await parked(pool, 4)
    assert [one.position for one in found] == [-1, 0, 1, 2]
    assert [one.reason for one in found] == [one.reason for one in old] + ["after", "after"]


async def test_a_topic_with_another_number_of_partitions_is_refused_also_when_some_are_missing(client):
    name = f"test.{uuid4().hex}.v1"
    await client.ensure([Topic(name, 2)], RETENTION)
    for other in (1, 3):
        with pytest.raises(TopicError, match="has 2 partitions and should have"):
            await client.ensure([Topic(name, other)], RETENTION)
    assert sorted(await client.ends(name)) == [0, 1]


async def test_a_topic_of_which_only_a_part_was_made_is_completed(nats_client):
    topic = Topic(f"test.{uuid4().hex}.v1", 3)
    await nats_client._make(topic, 0, RETENTION)
    await nats_client.ensure([topic], RETENTION)
    assert sorted(await nats_client.ends(topic.name)) == [0, 1, 2]


async def test_a_consumer_whose_database_is_a_copy_of_an_earlier_state_is_brought_to_the_same(
    pool, nats_broker, postgres, events_url
):
    """A real copy of the database, made while it was behind; the log goes on, and the copy catches up with it."""
    await log(nats_broker, *(record(version, key) for version in (1, 2) for key in ("o-1", "o-2")))
    async with consuming(pool, nats_broker):
        await handled(pool, 4)
    name = f"events_{uuid4().hex[:8]}"
    await pool.close()
    administrator = await asyncpg.connect(postgres.admin_url)
    await administrator.execute(f"CREATE DATABASE {name} TEMPLATE events_suite OWNER events_suite")
    try:
        async with asyncpg.create_pool(events_url, min_size=1, max_size=4) as live:
            await log(nats_broker, *(record(version, key) for version in (3, 4) for key in ("o-1", "o-2")))
            async with consuming(live, nats_broker):
                expected = sorted(await handled(live, 8))
        async with asyncpg.create_pool(events_url.removesuffix("events_suite") + name, min_size=1, max_size=4) as back:
            assert len(await effects(back)) == 4
            async with consuming(back, nats_broker):
                assert sorted(await handled(back, 8)) == expected
    finally:
        await administrator.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await administrator.close()
