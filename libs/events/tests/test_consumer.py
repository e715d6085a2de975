import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from amends_events import Batches, Consumer, TransientError, event_type
from amends_events import partition as reading
from amends_events.decisions import DecisionError
from amends_events.parked import ParkedDecision, ParkedFilter, ParkedReason, list_parked
from amends_events.replay import ReplayStart, begin, plan_replay
from amends_testkit.waiting import eventually
from google.protobuf.message import Message

from shop.payments.events.v1.payments_pb2 import PaymentRefunded, PaymentTaken

from .conftest import RETENTION
from .world import (
    TOPIC,
    Listed,
    answers,
    consuming,
    decide,
    effects,
    failing,
    handled,
    note,
    own_nats,
    parked,
    record,
    replay,
    running,
)

pytestmark = pytest.mark.usefixtures("hurried")
TYPE = event_type(PaymentTaken)
LEASE = timedelta(milliseconds=400)


async def log(broker, *records) -> None:
    """Put records into the log, each into the partition of its key."""
    await broker.ensure([TYPE.topic], RETENTION)
    for one in records:
        await broker.append(TOPIC, TYPE.topic.partition_of(one.attributes["subject"]), [one])


async def test_each_event_has_its_effect_once_in_the_order_of_its_key(pool, broker):
    await log(broker, *(record(version, key) for version in range(1, 11) for key in ("o-1", "o-2", "o-3")))
    async with consuming(pool, broker):
        found = await handled(pool, 30)
    for key in ("o-1", "o-2", "o-3"):
        assert [version for one, version in found if one == key] == list(range(1, 11))


async def test_an_event_that_comes_again_has_no_second_effect(pool, broker):
    one, other, last = record(1), record(2), record(3)
    await broker.ensure([TYPE.topic], RETENTION)
    place = (TOPIC, TYPE.topic.partition_of("o-1"))
    async with consuming(pool, broker):
        for _ in range(10):
            await broker.append(*place, [one])
        await broker.append(*place, [other, one])
        await broker.append(*place, [last])
        assert await handled(pool, 3) == [("o-1", 1), ("o-1", 2), ("o-1", 3)]


async def test_a_consumer_that_starts_again_goes_on_where_it_was(pool, broker):
    await log(broker, record(1))
    async with consuming(pool, broker):
        await handled(pool, 1)
    await log(broker, record(2))
    async with consuming(pool, broker):
        assert await handled(pool, 2) == [("o-1", 1), ("o-1", 2)]


@pytest.mark.parametrize(("batch", "transactions"), [(1, 6), (4, 2), (100, 1)])
async def test_a_transaction_handles_as_many_events_as_its_consumer_wants(pool, batch, transactions):
    seen = []

    async def handle(connection, event, message: Message) -> None:
        seen.append(await connection.fetchval("SELECT pg_current_xact_id()::text"))
        await note(connection, event, message)

    listed = Listed()
    await listed.append(TOPIC, 0, [record(number) for number in range(1, 7)])
    async with consuming(pool, listed, handle, batch=batch):
        assert await handled(pool, 6) == [("o-1", number) for number in range(1, 7)]
    assert len(set(seen)) == transactions


async def test_two_consumers_of_different_names_each_see_everything(pool, either_broker):
    await log(either_broker, record(1))
    async with consuming(pool, either_broker, name="one"), consuming(pool, either_broker, name="other"):
        assert await handled(pool, 2) == [("o-1", 1), ("o-1", 1)]


async def test_poison_parks_its_key_and_nothing_more(pool, broker):
    records = [record(version, key) for version in (1, 2, 3) for key in ("o-1", "o-2")]
    await log(broker, *records)

    async def handle(connection, event, message):
        if (event.key, event.version) == ("o-1", 2):
            raise ValueError("poison")
        await note(connection, event, message)

    async with consuming(pool, broker, handle):
        found = await parked(pool, 2)
        effects_now = await handled(pool, 4)
    assert [(one.key, one.reason, one.attempts) for one in found] == [
        ("o-1", ParkedReason.FAILED, 5),
        ("o-1", ParkedReason.AFTER, 0),
    ]
    assert found[0].detail == "ValueError: poison"
    assert sorted(effects_now) == [("o-1", 1), ("o-2", 1), ("o-2", 2), ("o-2", 3)]


async def test_after_the_mend_a_retry_handles_the_event_and_those_behind_it_in_order(pool, broker):
    await log(broker, *(record(version) for version in (1, 2, 3, 4)))
    handle = failing(2, times=reading.ATTEMPTS + 1)  # in the batch, and five times alone
    async with consuming(pool, broker, handle):
        first = (await parked(pool, 3))[0]
        await decide(pool, first, ParkedDecision.RETRY, "ada", "the handler is mended")
        assert await handled(pool, 4) == [("o-1", version) for version in (1, 2, 3, 4)]
        await parked(pool, 0)
        await log(broker, record(5))  # the key is free again
        assert (await handled(pool, 5))[-1] == ("o-1", 5)
    row = await pool.fetchrow(
        "SELECT decided_by, decided_because, released_at FROM inbox_parked WHERE decision = 'retry'"
    )
    assert (row["decided_by"], row["decided_because"]) == ("ada", "the handler is mended")


async def test_an_event_that_comes_twice_behind_a_parked_one_has_one_effect(pool, broker):
    first, second = record(1), record(2)
    await broker.ensure([TYPE.topic], RETENTION)
    place = (TOPIC, TYPE.topic.partition_of("o-1"))
    await broker.append(*place, [first])
    async with consuming(pool, broker, failing(1)):
        (poison,) = await parked(pool, 1)
        for batch in ([second, record(3)], [second, record(4)]):
            await broker.append(*place, batch)
        await parked(pool, 4)
        await decide(pool, poison, ParkedDecision.SKIP, "ada", "a test order")
        assert await handled(pool, 3) == [("o-1", version) for version in (2, 3, 4)]
        await parked(pool, 0)


async def test_an_event_that_is_twice_in_a_batch_behind_a_parked_one_has_one_effect(pool):
    """NATS stores no second one for minutes, so a list stands in for a log that has it twice in a row."""
    broker = Listed()
    first, second = record(1), record(2)
    await broker.append(TOPIC, 0, [first])
    async with consuming(pool, broker, failing(1)):
        (poison,) = await parked(pool, 1)
        await broker.append(TOPIC, 0, [second, second, record(3)])
        await parked(pool, 3)
        await decide(pool, poison, ParkedDecision.SKIP, "ada", "a test order")
        assert await handled(pool, 2) == [("o-1", 2), ("o-1", 3)]
        await parked(pool, 0)


async def test_a_skipped_event_is_left_out_and_those_behind_it_follow(pool, either_broker):
    await log(either_broker, *(record(version) for version in (1, 2, 3)))
    async with consuming(pool, either_broker, failing(1)):
        first = (await parked(pool, 3))[0]
        await decide(pool, first, ParkedDecision.SKIP, "ada", "a test order")
        assert await handled(pool, 2) == [("o-1", 2), ("o-1", 3)]
        await parked(pool, 0)


async def test_a_retry_that_fails_again_waits_for_another_decision(pool, either_broker):
    await log(either_broker, record(1), record(2))
    async with consuming(pool, either_broker, failing(1)):
        first = (await parked(pool, 2))[0]
        await decide(pool, first, ParkedDecision.RETRY, "ada", "hope")

        async def failed_again():
            return (await list_parked(pool, ParkedFilter("test")))[0].attempts == 6

        await eventually(failed_again)
        assert [one.decision for one in await list_parked(pool, ParkedFilter("test"))] == [None, None]
    assert await effects(pool) == []


async def test_only_the_first_of_a_key_can_be_decided_and_only_with_a_reason(pool, either_broker):
    await log(either_broker, record(1), record(2))
    async with consuming(pool, either_broker, failing(1)):
        first, behind = await parked(pool, 2)
    with pytest.raises(DecisionError):
        await decide(pool, behind, ParkedDecision.SKIP, "ada", "why not")
    with pytest.raises(ValueError, match="needs a reason"):
        await decide(pool, first, ParkedDecision.SKIP, "ada", " ")
    await decide(pool, first, ParkedDecision.SKIP, "ada", "a test order")
    with pytest.raises(DecisionError):
        await decide(pool, first, ParkedDecision.RETRY, "bob", "decided already")


async def test_who_dies_between_a_release_and_what_is_behind_it_is_followed_by_somebody_who_goes_on(
    pool, either_broker
):
    await log(either_broker, record(1), record(2))
    async with consuming(pool, either_broker, failing(1)):
        await parked(pool, 2)
    await pool.execute("UPDATE inbox_parked SET released_at = now() WHERE reason = 'failed'")
    async with consuming(pool, either_broker):
        assert await handled(pool, 1) == [("o-1", 2)]


async def test_bytes_that_are_no_event_are_parked_at_once_and_block_their_key(pool, broker):
    await log(broker, record(1, payload=b"\xff\xff"), record(2), record(1, "o-2"))
    async with consuming(pool, broker):
        found = await parked(pool, 2)
        assert await handled(pool, 1) == [("o-2", 1)]
    assert [(one.reason, one.attempts) for one in found] == [(ParkedReason.UNDECODABLE, 0), (ParkedReason.AFTER, 0)]


async def test_an_envelope_that_makes_no_sense_is_parked(pool, either_broker):
    broken = record(1)
    strange = type(broken)({**broken.attributes, "sequence": "one"}, b"")
    await log(either_broker, strange, record(1, "o-2"))
    async with consuming(pool, either_broker):
        (found,) = await parked(pool, 1)
        assert await handled(pool, 1) == [("o-2", 1)]
    assert (found.reason, found.key, found.event_id) == (ParkedReason.UNDECODABLE, "o-1", None)


async def test_a_type_that_nobody_handles_is_skipped(pool, broker):
    refunded = PaymentRefunded.DESCRIPTOR.full_name
    await log(broker, record(1, kind=refunded), record(2, kind="shop.payments.events.v1.Unheard"), record(3))
    async with consuming(pool, broker):
        assert await handled(pool, 1) == [("o-1", 3)]
    assert await list_parked(pool, ParkedFilter("test")) == []


async def test_an_event_of_a_newer_release_is_handled_and_keeps_the_fields_that_nobody_here_knows(pool, either_broker):
    newer = PaymentTaken(order_id="o-1").SerializeToString() + b"\xfa\x3f\x03new"  # field 1023, bytes
    seen = []

    async def handle(connection, event, message):
        seen.append(message.SerializeToString())
        await note(connection, event, message)

    await log(either_broker, record(1, payload=newer), record(2, kind="shop.payments.events.v1.PaymentForgiven"))
    async with consuming(pool, either_broker, handle):
        assert await handled(pool, 1) == [("o-1", 1)]
    assert seen == [newer]


async def test_one_bad_event_among_a_hundred_is_parked_and_the_others_are_handled(pool, broker):
    await broker.ensure([TYPE.topic], RETENTION)
    partition = TYPE.topic.partition_of("o-1")
    keys = [f"k-{number}" for number in range(1000) if TYPE.topic.partition_of(f"k-{number}") == partition][:100]
    await broker.append(TOPIC, partition, [record(number, key) for number, key in enumerate(keys)])
    async with consuming(pool, broker, failing(50)):
        await parked(pool, 1)
        found = await handled(pool, 99)
    assert sorted(version for _, version in found) == [number for number in range(100) if number != 50]


async def test_what_goes_away_by_itself_is_waited_for_and_parks_nothing(pool, either_broker):
    await log(either_broker, record(1), record(2))
    handle = failing(1, times=7, error=TransientError)
    async with consuming(pool, either_broker, handle):
        assert await handled(pool, 2) == [("o-1", 1), ("o-1", 2)]
    assert handle.left == [0]
    assert await list_parked(pool, ParkedFilter("test")) == []


async def test_a_slow_handler_holds_up_its_own_partition_alone(pool, either_broker):
    other = next(key for key in ("o-2", "o-3") if TYPE.topic.partition_of(key) != TYPE.topic.partition_of("o-1"))
    await log(either_broker, record(1), record(1, other), record(2, other))
    going = asyncio.Event()

    async def handle(connection, event, message):
        if event.key == "o-1":
            await going.wait()
        await note(connection, event, message)

    async with consuming(pool, either_broker, handle):
        assert await handled(pool, 2) == [(other, 1), (other, 2)]
        going.set()
        assert len(await handled(pool, 3)) == 3


async def test_a_handler_that_swallows_an_error_of_the_database_is_not_committed(pool, either_broker):
    async def swallow(connection, event, message):
        await note(connection, event, message)
        try:
            await connection.execute("SELECT 1 / 0")
        except asyncpg.DivisionByZeroError:
            return

    await log(either_broker, record(1))
    async with consuming(pool, either_broker, swallow):
        (found,) = await parked(pool, 1)
    assert "went on after an error" in found.detail
    assert await effects(pool) == []


async def test_processes_share_the_partitions_and_who_is_left_takes_them_over(pool, either_broker):
    await either_broker.ensure([TYPE.topic], RETENTION)
    async with consuming(pool, either_broker, lease=LEASE) as first:
        await eventually(lambda: len(first.partitions) == 8)
        async with consuming(pool, either_broker, lease=LEASE) as second:
            await eventually(lambda: (len(first.partitions), len(second.partitions)) == (4, 4))
        await eventually(lambda: len(first.partitions) == 8)


async def test_a_process_that_dies_is_taken_over_when_its_lease_has_run_out(pool, either_broker, monkeypatch):
    await log(either_broker, record(1))
    dying = Consumer("test", pool, either_broker, {PaymentTaken: note}, lease=LEASE)

    async def leaves_nothing_behind() -> None:
        """As after kill -9: nothing is given back."""

    monkeypatch.setattr(dying, "_leave", leaves_nothing_behind)
    task = asyncio.create_task(dying.run())
    await handled(pool, 1)
    task.cancel()
    await asyncio.wait([task])
    assert await pool.fetchval("SELECT count(*) FROM inbox_position WHERE owner IS NOT NULL") == 8
    await log(either_broker, record(2))
    async with consuming(pool, either_broker, lease=LEASE):
        assert await handled(pool, 2) == [("o-1", 1), ("o-1", 2)]


async def test_a_partition_whose_claim_was_never_answered_is_read_all_the_same(pool, either_broker):
    """The database gave it to this process, which did not hear of it: it keeps the lease, and has to read."""
    claimed = "UPDATE inbox_position SET owner = $1, fence = fence + 1, lease_until = now() + interval '1 hour'"
    await log(either_broker, record(1))
    async with consuming(pool, either_broker, lease=LEASE) as consumer:
        await handled(pool, 1)
        await pool.execute(claimed, consumer.owner)
        await log(either_broker, record(2))
        assert await handled(pool, 2) == [("o-1", 1), ("o-1", 2)]


async def test_who_stood_still_in_the_middle_of_a_transaction_commits_nothing(pool, broker):
    """The first stands still in its handler for longer than its lease, without a word to the database."""
    await log(broker, record(1))
    stands, goes_on = asyncio.Event(), asyncio.Event()

    async def stand_still(connection, event, message):
        await note(connection, event, message)
        stands.set()
        await goes_on.wait()
        await note(connection, event, message)

    zombie = Consumer("test", pool, broker, {PaymentTaken: stand_still}, lease=LEASE)
    task = asyncio.create_task(zombie.run())
    await stands.wait()
    beating = next(one for one in asyncio.all_tasks() if "_keep_leases" in repr(one.get_coro()) or one is task)
    assert beating is task
    zombie._leases.beat = _never  # its beats stand still too
    async with consuming(pool, broker, lease=LEASE):
        assert await handled(pool, 1) == [("o-1", 1)]
        goes_on.set()
        await eventually(lambda: not zombie.partitions or all(one.position == 0 for one in zombie.partitions))
        assert await effects(pool) == [("o-1", 1)]
    task.cancel()
    await asyncio.wait([task])
    assert await effects(pool) == [("o-1", 1)]


async def _never(connection):
    await asyncio.Event().wait()


async def test_a_claim_with_an_old_fence_cannot_commit(pool, either_broker):
    await log(either_broker, record(1))
    in_handler, goes_on = asyncio.Event(), asyncio.Event()

    async def handle(connection, event, message):
        in_handler.set()
        await goes_on.wait()
        await note(connection, event, message)

    async with consuming(pool, either_broker, handle) as consumer:
        await in_handler.wait()
        fences = {one.claim.fence for one in consumer.partitions}
        assert fences == {1}
        goes_on.set()
        await handled(pool, 1)
        # As the claim of another process does.
        await pool.execute(
            "UPDATE inbox_position"
            " SET fence = fence + 1, owner = gen_random_uuid()::text, lease_until = now() + interval '1 hour'"
        )
        await log(either_broker, record(2))

        await eventually(lambda: not any(one.claim.fence == 1 for one in consumer.partitions))
    assert await effects(pool) == [("o-1", 1)]


async def test_a_replay_of_everything_has_no_second_effect(pool, broker):
    await log(broker, *(record(version) for version in (1, 2, 3)))
    async with consuming(pool, broker, lease=LEASE):
        await handled(pool, 3)
        moves = await plan_replay(pool, broker, "test", TYPE.topic, ReplayStart(1, key="o-1"))
        assert [(move.position, move.back_to) for move in moves] == [(3, 0)]
        await replay(pool, moves)
        await log(broker, record(4))
        assert await handled(pool, 4) == [("o-1", version) for version in (1, 2, 3, 4)]


async def test_a_consumer_whose_database_was_restored_is_brought_to_the_same_state_by_a_replay(pool, broker):
    await log(broker, *(record(version, key) for version in range(1, 6) for key in ("o-1", "o-2")))
    async with consuming(pool, broker):
        before = sorted(await handled(pool, 10))
    # A backup from before version 4: effects, inbox and positions are of one time.
    await pool.execute("DELETE FROM inbox WHERE event_id IN (SELECT event_id FROM effect WHERE version > 3)")
    await pool.execute("DELETE FROM effect WHERE version > 3")
    await pool.execute("UPDATE inbox_position SET position = 3, event_id = NULL WHERE position > 3")
    async with consuming(pool, broker):
        assert sorted(await handled(pool, 10)) == before


async def test_a_replay_from_a_time_finds_the_first_event_that_is_not_older(pool, broker):
    await log(broker, record(1), record(2))
    async with consuming(pool, broker):
        await handled(pool, 2)
        since = datetime.now(UTC)
        await log(broker, record(3), record(4))
        await handled(pool, 4)
    (move,) = await plan_replay(pool, broker, "test", TYPE.topic, ReplayStart(since))
    assert (move.position, move.back_to) == (4, 2)


@pytest.mark.parametrize("grown", [False, True], ids=["shorter", "longer than before"])
async def test_a_log_that_has_forgotten_stops_its_consumer_and_nothing_is_jumped_over(pool, own, grown):
    async with own() as (server, broker):
        await log(broker, record(1), record(2))
        async with consuming(pool, broker):
            await handled(pool, 2)
        await server.stop()
        server.forget()
        await server.restart()
        await eventually(lambda: answers(broker))
        await log(broker, *[record(version) for version in (3, 4, 5, 6)][: 4 if grown else 1])
        async with consuming(pool, broker) as consumer:
            place = TYPE.topic.partition_of("o-1")

            def stands():
                return any(one.lost for one in consumer.partitions if one.claim.partition == place)

            await eventually(stands)
            assert await effects(pool) == [("o-1", 1), ("o-1", 2)]
            await log(broker, record(1, "o-2"))  # other partitions go on
            assert (await handled(pool, 3))[-1] == ("o-2", 1)


async def test_what_the_log_has_dropped_by_age_before_it_was_read_is_seen(pool, tmp_path):
    async with own_nats(tmp_path) as (_, broker):
        await broker.ensure([TYPE.topic], timedelta(milliseconds=300))
        await log(broker, record(1))
        async with consuming(pool, broker):
            await handled(pool, 1)
        await log(broker, record(2))

        async def gone():
            ends = (await broker.ends(TOPIC))[TYPE.topic.partition_of("o-1")]
            return ends.first == 3

        await eventually(gone)
        async with consuming(pool, broker) as consumer:
            await eventually(lambda: any(one.lost for one in consumer.partitions))
        assert await effects(pool) == [("o-1", 1)]


async def test_a_broker_that_comes_back_is_read_on_from(pool, own):
    async with own() as (server, broker):
        await log(broker, record(1))
        async with consuming(pool, broker):
            await handled(pool, 1)
            server.kill()
            await server.restart()
            await eventually(lambda: answers(broker))
            await log(broker, record(2))
            assert await handled(pool, 2) == [("o-1", 1), ("o-1", 2)]


async def test_what_was_handled_long_ago_is_forgotten(pool, either_broker):
    await log(either_broker, record(1), record(2))
    async with consuming(pool, either_broker) as consumer:
        await handled(pool, 2)
        await pool.execute(
            "UPDATE inbox SET at = now() - interval '20 days' WHERE event_id = (SELECT event_id FROM effect LIMIT 1)"
        )
        assert await consumer.expire() == 1
        assert await consumer.expire() == 0


def in_batches(sizes: list[int], poison: int = 0, **options) -> Batches:
    """A handler of batches that says how large each was, and fails for the event of one version."""

    async def handle(connection, events) -> None:
        for event, message in events:
            if event.version == poison:
                raise ValueError("poison")
            await note(connection, event, message)
        sizes.append(len(events))

    return Batches((PaymentTaken,), handle, **options)


async def test_events_are_handled_by_the_batch_and_only_a_bad_one_is_parked(pool, broker):
    await log(broker, *(record(version, f"o-{version}") for version in range(1, 41)))
    sizes: list[int] = []
    async with running(Consumer("test", pool, broker, in_batches(sizes, poison=7), batch=30).run()):
        found = await handled(pool, 39)
        [one] = await parked(pool, 1)
    assert sorted(version for _, version in found) == [version for version in range(1, 41) if version != 7]
    assert one.key == "o-7"
    assert max(sizes) > 1


async def test_a_handler_that_knows_what_it_has_handled_leaves_the_inbox_out(pool):
    broker, one = Listed(), record(1)
    broker.log = [one, one, record(2)]
    async with running(Consumer("test", pool, broker, in_batches([], remembers=False)).run()):
        assert await handled(pool, 3) == [("o-1", 1), ("o-1", 1), ("o-1", 2)]
    assert not await pool.fetchval("SELECT count(*) FROM inbox")


async def test_a_new_consumer_may_begin_behind_what_the_log_has_now(pool, broker):
    await log(broker, record(1), record(2, "o-2"))
    await begin(pool, broker, "test", TYPE.topic)
    await log(broker, record(3))
    await begin(pool, broker, "test", TYPE.topic)
    async with consuming(pool, broker):
        assert await handled(pool, 1) == [("o-1", 3)]
