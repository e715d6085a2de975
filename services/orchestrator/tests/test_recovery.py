"""What survives: replicas that die, databases that go away, drains, long waits; and that everything ends once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import asyncpg
import grpc
import pytest
from amends_embedded import Child, Postgres
from amends_orchestrator.journal.reader import read_journal, read_run
from amends_orchestrator.journal.records import Claimed
from amends_orchestrator.runner import live as live_runs
from amends_testkit.answers import ScriptedAnswer
from amends_testkit.waiting import eventually

from amends.saga.v1 import run_service_pb2 as pb

from .shop import INPUT, Shop, open_shop, orchestrator, state

AWAY = ScriptedAnswer.refused(grpc.StatusCode.UNAVAILABLE, text="away")
SLOW_POLICY = """
apiVersion: amends.dev/v1alpha1
kind: RetryPolicy
metadata: {name: quick, namespace: shop}
spec:
  timeout: 2s
  attempts: 1000
  backoff: {initial: 60s, max: 60s}
  circuitBreaker: {failureRatio: 1.0, minimumCalls: 1000}
  budget: {ratio: 10, minPerSecond: 1000}
"""


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as shop:
        yield shop


def replica(url: str, folder: Path, name: str) -> Child:
    """An orchestrator in a process of its own."""
    environment = {
        "AMENDS_DATABASE_URL": url,
        "AMENDS_TARGETS": "loopback",
        "AMENDS_LEASE": "1s",
        "AMENDS_POLL": "100ms",
    }
    command = [sys.executable, "-m", "amends_orchestrator"]
    log, report = folder / f"{name}.log", folder / f"{name}.json"
    return Child.start(name, command, environment=environment, log=log, report=report)


async def test_a_killed_replica_is_taken_over_and_every_run_ends_with_one_effect_a_step(
    database_url: str, shop: Shop, tmp_path: Path
):
    gate = asyncio.Event()
    shop.payments.script("Charge", ScriptedAnswer.ok().once(gate))
    child = replica(database_url, tmp_path, "first")
    report = await child.ready()
    async with orchestrator(database_url, lease=timedelta(seconds=1)) as survivor:
        await survivor.apply(shop)
        async with grpc.aio.insecure_channel(report["grpc"]) as channel:
            doomed = replace(survivor, runs=type(survivor.runs)(channel), channel=channel)
            started = await asyncio.gather(*(doomed.start(f"k{n}", wait=False) for n in range(20)))
        await shop.payments.called("Charge", 20)
        child.kill()
        gate.set()
        for answer in started:
            run = await survivor.ended(answer.run.run_id)
            assert state(run) == "COMPLETED"
            assert run.fence == 2
    for part, method in (("inventory", "Reserve"), ("payments", "Charge"), ("shipping", "Book"), ("orders", "Confirm")):
        effects = [key for name, key in getattr(shop, part).effects if name == method]
        assert len(effects) == len(set(effects)) == 20


async def test_a_drained_replica_hands_its_runs_over_cleanly(database_url: str, shop: Shop):
    gate = asyncio.Event()
    shop.payments.script("Charge", ScriptedAnswer.ok().once(gate))
    async with orchestrator(database_url) as second:
        async with orchestrator(database_url) as first:
            await first.apply(shop)
            run = (await first.start("k", wait=False)).run
            await shop.payments.called("Charge")
            asyncio.get_running_loop().call_later(0.1, gate.set)
        after = await second.ended(run.run_id)
        kinds = [event.kind for event in await second.timeline(run.run_id)]
    assert state(after) == "COMPLETED"
    assert "RELEASED" in kinds
    assert len(shop.payments.calls("Charge")) == 1, "the call under way was awaited, not repeated"


async def test_a_run_that_is_claimed_while_its_new_owner_drains_is_handed_over_too(database_url: str, shop: Shop):
    gate = asyncio.Event()
    shop.payments.script("Charge", ScriptedAnswer.ok().once(gate))
    async with orchestrator(database_url) as client:
        await client.apply(shop)
        await client.start("k", wait=False)
        await shop.payments.called("Charge")
        fleet = client.parts.fleet
        fleet.draining = True  # as it is when the claimer's statement was under way
        (live,) = fleet.runs.values()
        connection = await asyncpg.connect(database_url)
        await connection.execute("UPDATE run SET owner = NULL, fence = 2, due_at = now() WHERE id = $1", live.info.id)
        await connection.execute("UPDATE run SET owner = $2, fence = 3 WHERE id = $1", live.info.id, fleet.process)
        row, records = await read_run(connection, live.info.id), await read_journal(connection, live.info.id)
        assert row is not None
        adopted = fleet.adopt(live.definition, Claimed(row, tuple(records)))
        gate.set()
        await eventually(lambda: adopted.gone)
        let_go = await read_run(connection, live.info.id)
        assert let_go is not None
        assert (let_go.owner, let_go.fence, let_go.due_at is not None) == (None, 3, True)
        await connection.close()


async def test_a_call_that_breaks_in_a_way_nobody_foresaw_is_given_back_visibly(
    database_url: str, shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("nobody foresaw it")

    async with orchestrator(database_url) as client:
        await client.apply(shop)
        monkeypatch.setattr(live_runs, "call_metadata", broken)
        run = (await client.start("k", wait=False)).run

        async def stalled() -> bool:
            return "INTERNAL" in (await client.run(run.run_id)).stalled.reason

        await eventually(stalled)
        assert client.parts.fleet.runs == {}


async def test_runs_that_wait_for_long_leave_the_memory_and_come_back(database_url: str, shop: Shop):
    shop.payments.script("Charge", AWAY)
    connection = await asyncpg.connect(database_url)
    unowned = "owner IS NULL AND due_at IS NOT NULL"
    async with orchestrator(database_url) as client:
        await client.apply(shop, policy=SLOW_POLICY)
        answers = await asyncio.gather(*(client.start(f"k{n}", wait=False) for n in range(30)))

        async def waiting() -> bool:
            count: int = await connection.fetchval(
                "SELECT count(*) FROM run WHERE owner IS NULL AND due_at IS NOT NULL"
            )
            return count >= 20 and len(client.parts.fleet.runs) <= 30 - count

        await eventually(waiting)
        shop.payments.script("Charge", ScriptedAnswer.ok())

        async def all_ended() -> bool:  # some are let go only now
            await connection.execute(f"UPDATE run SET due_at = clock_timestamp() WHERE {unowned}")
            return bool(await connection.fetchval("SELECT bool_and(ended_at IS NOT NULL) FROM run"))

        await eventually(all_ended, timeout=timedelta(seconds=30))
        runs = [await client.run(answer.run.run_id) for answer in answers]
    await connection.close()
    assert {state(run) for run in runs} == {"COMPLETED"}
    assert max(run.fence for run in runs) >= 2
    charged = [key for name, key in shop.payments.effects if name == "Charge"]
    assert len(charged) == len(set(charged)) == 30


async def test_when_the_database_goes_away_runs_pause_and_go_on(shop: Shop, tmp_path: Path):
    async with await Postgres.start(tmp_path / "data") as server:
        url = await server.create("amends", "amends")
        async with orchestrator(url, lease=timedelta(seconds=5)) as client:
            await client.apply(shop)
            gate = asyncio.Event()
            shop.payments.script("Charge", ScriptedAnswer.ok().once(gate))
            started = await asyncio.gather(*(client.start(f"k{n}", wait=False) for n in range(10)))
            await shop.payments.called("Charge", 10)
            server.kill()
            gate.set()
            await eventually(lambda: not client.parts.writer.reachable.is_set())
            await eventually(lambda: not client.runtime.health.ready)
            await server.restart()
            for answer in started:
                assert state(await client.ended(answer.run.run_id, timedelta(seconds=30))) == "COMPLETED"
            await eventually(lambda: client.runtime.health.ready)
            charged = [key for name, key in shop.payments.effects if name == "Charge"]
            assert len(charged) == len(set(charged)) == 10


async def test_starts_beyond_what_fits_into_memory_wait_in_the_database_and_all_end(database_url: str, shop: Shop):
    async with orchestrator(database_url, hot_runs=4) as client:
        await client.apply(shop)
        answers = await asyncio.gather(*(client.start(f"k{n}") for n in range(40)))
        assert {state(answer.run) for answer in answers} == {"COMPLETED"}
        assert len(shop.payments.effects) == 40


async def test_bytes_beyond_what_fits_into_memory_wait_in_the_database_and_all_end(database_url: str, shop: Shop):
    """Each input has 30 KB. One more run may come while there is room: no run is too large to be run at all."""
    shop.payments.script("Charge", ScriptedAnswer.ok().after(timedelta(milliseconds=100)))
    async with orchestrator(database_url, hot_bytes=100_000) as client:
        await client.apply(shop)
        fleet = client.parts.fleet
        heaviest = 0

        async def weigh() -> None:
            nonlocal heaviest
            while True:
                heaviest = max(heaviest, fleet.weight)
                await asyncio.sleep(0.001)

        weighing = asyncio.create_task(weigh())
        large = INPUT | {"cardToken": "tok_" + "x" * 30_000}
        answers = await asyncio.gather(*(client.start(f"k{n}", json=large) for n in range(30)))
        weighing.cancel()
        assert {state(await client.ended(answer.run.run_id)) for answer in answers} == {"COMPLETED"}
        assert 100_000 < heaviest < 250_000
        await eventually(lambda: fleet.weight == 0)


async def test_an_heir_takes_what_it_can_hold(database_url: str, shop: Shop):
    """Every run hangs in a call, so that none leaves the memory while it waits."""
    shop.payments.script("Charge", ScriptedAnswer.ok().after(timedelta(seconds=20)))
    hanging = SLOW_POLICY.replace("{initial: 60s, max: 60s}", "{initial: 10ms, max: 50ms}")
    large = INPUT | {"cardToken": "tok_" + "x" * 30_000}
    async with orchestrator(database_url, drain=timedelta(milliseconds=100)) as first:
        await first.apply(shop, policy=hanging)
        started = [(await first.start(f"k{n}", wait=False, json=large)).run.run_id for n in range(20)]
        await eventually(lambda: len(shop.payments.calls("Charge")) >= 20)
    async with orchestrator(database_url, hot_bytes=200_000) as heir:
        await eventually(lambda: heir.parts.fleet.spare_bytes <= 0)
        assert len(heir.parts.fleet.runs) < 10
        shop.payments.script("Charge", ScriptedAnswer.ok())
        for run_id in started:
            assert state(await heir.ended(run_id, timedelta(seconds=60))) == "COMPLETED"


async def test_a_run_of_a_newer_release_is_left_alone_visibly_and_never_misread(database_url: str, shop: Shop):
    """As after a rollback: the release before finds runs whose journal's rules it does not know."""
    shop.payments.script("Charge", AWAY)
    async with orchestrator(database_url) as newer:
        await newer.apply(shop, policy=SLOW_POLICY)
        run_id = (await newer.start("k", wait=False)).run.run_id
        await shop.payments.called("Charge")
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE run SET rules = 3, due_at = clock_timestamp()")
    shop.payments.script("Charge", ScriptedAnswer.ok())
    calls = len(shop.payments.calls("Charge"))
    async with orchestrator(database_url) as older:
        found = await older.runs.GetRun(pb.GetRunRequest(run_id=run_id, timeline=10))
        assert "written under rules 3, and this orchestrator knows 2" in found.run.stalled.reason
        assert (state(found.run), list(found.run.steps), list(found.timeline)) == ("RUNNING", [], [])
        assert [run.run_id for run in (await older.runs.ListRuns(pb.ListRunsRequest())).runs] == [run_id]
        assert await older.timeline(run_id) == []
        ours = await older.start("another")
        assert state(ours.run) == "COMPLETED"
        assert len(shop.payments.calls("Charge")) == calls + 1
        await connection.execute("UPDATE run SET rules = 1 WHERE id = $1", run_id)
        assert state(await older.ended(run_id)) == "COMPLETED"
    await connection.close()


async def test_pages_of_runs_are_complete_and_newest_first(database_url: str, shop: Shop):
    async with orchestrator(database_url) as client:
        await client.apply(shop)
        started = [(await client.start(f"k{n}")).run.run_id for n in range(7)]
        found: list[str] = []
        token = ""
        while True:
            page = await client.runs.ListRuns(pb.ListRunsRequest(namespace="shop", page_size=3, page_token=token))
            found += [run.run_id for run in page.runs]
            token = page.next_page_token
            if not token:
                break
        assert found == list(reversed(started))
        none = await client.runs.ListRuns(pb.ListRunsRequest(states=[1, 2, 3]))
        assert not none.runs
        for length in (1, 8, 9, 13, 18, 35, 36):
            prefix = started[3][:length]
            page = await client.runs.ListRuns(pb.ListRunsRequest(run_id_prefix=prefix))
            assert [run.run_id for run in page.runs] == [one for one in reversed(started) if one.startswith(prefix)]
        for prefix in ("xyz", "0-1", started[3].upper(), started[3] + "0"):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await client.runs.ListRuns(pb.ListRunsRequest(run_id_prefix=prefix))
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
