"""What happens to whole processes and to the wires between them: paused, cut, stopped in order, with a wrong clock."""

import asyncio
import signal
from datetime import timedelta
from typing import Any

import asyncpg
import grpc.aio
import pytest
from amends_testkit.receiver import HANG
from amends_testkit.waiting import eventually

from .places import action, compensation
from .proxy import Proxy
from .scenarios import SCENARIOS
from .test_crash_points import as_it_should_be, new_order
from .world import LEASE, POLICY, SAGA, World, insist

ACCEPTED, DECLINED, NO_SLOT = SCENARIOS
IMPATIENT = POLICY.replace("attempts: 100", "attempts: 2").replace("timeout: 300ms", "timeout: 100ms")
LOST = "another owner has taken the run"
CONFIRMED = list(ACCEPTED.effects)


async def stands_still(world: World, name: str) -> None:
    await eventually(lambda: world.processes[name].stopped, what=f"{name} stands still")


@pytest.fixture
async def quiet(world: World):
    """The world as every test finds and leaves it: one orchestrator `a`, the definitions in force, all runs ended."""
    yield world
    if "b" in world.processes:
        await world.processes["b"].kill()
        await world.expire()
    if world.processes["participants"].ended.done():
        await world.start_participants()
    if world.processes["a"].ended.done():
        await world.start("a")
    await world.audit()


class TestAnOwnerThatStoodStillPastItsLease:
    async def test_between_intent_and_call_finds_its_late_call_answered_and_its_rows_refused(self, quiet: World):
        order_id, a = new_order(), quiet.processes["a"]
        a.order("stop", action("ship").sent)
        placing = asyncio.create_task(quiet.place("a", order_id))
        await stands_still(quiet, "a")
        await quiet.start("b")
        assert await quiet.ended(order_id) == "COMPLETED"
        assert (await quiet.row(order_id))["fence"] == 2
        a.send(signal.SIGCONT)
        await eventually(lambda: action("ship").answer() in a.reached(), what="the late call is answered")
        await eventually(lambda: LOST in a.log(), what="the old owner hears that it has lost the run")
        await placing
        assert await quiet.effects(order_id) == CONFIRMED

    async def test_finds_its_late_call_fenced_when_the_run_was_undone_meanwhile(self, quiet: World):
        order_id, a = new_order(), quiet.processes["a"]
        a.order("stop", action("reserve").sent)
        placing = asyncio.create_task(quiet.place("a", order_id, card="tok_declined"))
        await stands_still(quiet, "a")
        await quiet.start("b")
        assert await quiet.ended(order_id) == "COMPENSATED"
        before = await quiet.effects(order_id)
        a.send(signal.SIGCONT)
        await eventually(
            lambda: action("reserve").answer(grpc.StatusCode.ABORTED, "STEP_FENCED") in a.reached(),
            what="the late call is refused",
        )
        await eventually(lambda: LOST in a.log(), what="the old owner hears that it has lost the run")
        await placing
        assert await quiet.effects(order_id) == before == list(DECLINED.effects)

    async def test_between_call_and_outcome_has_one_effect_and_drops_the_run(self, quiet: World):
        order_id, a = new_order(), quiet.processes["a"]
        a.order("stop", action("charge").answered)
        placing = asyncio.create_task(quiet.place("a", order_id))
        await stands_still(quiet, "a")
        await quiet.start("b")
        assert await quiet.ended(order_id) == "COMPLETED"
        a.send(signal.SIGCONT)
        await eventually(lambda: LOST in a.log(), what="the old owner hears that it has lost the run")
        await placing
        assert await quiet.effects(order_id) == CONFIRMED

    async def test_before_it_undoes_finds_its_late_compensation_answered(self, quiet: World):
        order_id, a = new_order(), quiet.processes["a"]
        a.order("stop", compensation("charge").sent)
        placing = asyncio.create_task(quiet.place("a", order_id, country="AT"))
        await stands_still(quiet, "a")
        await quiet.start("b")
        assert await quiet.ended(order_id) == "COMPENSATED"
        a.send(signal.SIGCONT)
        await eventually(lambda: compensation("charge").answer() in a.reached(), what="the late call is answered")
        await placing
        assert await quiet.effects(order_id) == list(NO_SLOT.effects)

    async def test_takes_no_run_from_anybody_and_goes_on_with_new_ones(self, quiet: World):
        first, second, a = new_order(), new_order(), quiet.processes["a"]
        a.order("stop", "journal.sent:answered:reserve:action")
        placing = asyncio.create_task(quiet.place("a", first))
        await stands_still(quiet, "a")
        await quiet.start("b")
        assert await quiet.ended(first) == "COMPLETED"
        a.send(signal.SIGCONT)
        await placing
        await quiet.place("a", second)
        await as_it_should_be(quiet, second, ACCEPTED)


class TestWhoeverTellsAWebhook:
    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
    async def test_and_ends_while_it_answers_leaves_it_to_the_next(self, quiet: World, how: signal.Signals):
        order_id, a = new_order(), quiet.processes["a"]
        before = len(quiet.receiver.received)
        quiet.receiver.script(HANG)
        await quiet.place("a", order_id)
        assert await quiet.ended(order_id) == "COMPLETED"
        await eventually(lambda: len(quiet.receiver.received) > before, what="it is being told")
        a.send(how)
        await asyncio.wait_for(a.ended, 30)
        if how is signal.SIGKILL:
            await quiet.expire()
        await quiet.start("a")
        await quiet.told(order_id, "RunStarted", "RunEnded")
        first = [request for request in quiet.receiver.received[before:] if request.kind == "RunStarted"]
        assert len(first) == 2, "nobody knows whether it was told, so it is told again"


def proxied(url: str, proxy: Proxy) -> str:
    """The same database, through the proxy."""
    before, _, after = url.rpartition("@")
    return f"{before}@{proxy.address}/{after.partition('/')[2]}"


class TestTheWireToTheDatabase:
    @pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
    @pytest.mark.parametrize("what", ["answer", "statement"])
    async def test_loses_each_of_them_once_and_nothing_is_lost_or_doubled(self, quiet: World, scenario: Any, what: str):
        """A commit that was applied and whose answer is lost, and one that never was: for the start and two answers."""
        order_id = new_order()
        markers = [order_id.encode(), b"reserve", b"charge"]
        port = int(quiet.journal_url.rpartition(":")[2].partition("/")[0])
        await quiet.processes["a"].kill()
        await quiet.expire()
        async with Proxy.open("127.0.0.1", port) as proxy:
            await quiet.start("b", database=proxied(quiet.journal_url, proxy))
            (proxy.lose_answers_to if what == "answer" else proxy.lose).extend(markers)
            answer = await quiet.place("b", order_id, **scenario.input)
            assert answer.created or what == "answer"
            await as_it_should_be(quiet, order_id, scenario)
            assert proxy.lost == len(markers)
            await quiet.processes["b"].kill()
        assert (await quiet.row(order_id))["fence"] == 1, "nobody had to take it over"

    async def test_is_cut_with_the_machine_behind_it_and_other_replicas_go_on(self, quiet: World):
        order_id = new_order()
        port = int(quiet.journal_url.rpartition(":")[2].partition("/")[0])
        await quiet.processes["a"].kill()
        async with Proxy.open("127.0.0.1", port) as proxy:
            cut_off = await quiet.start("b", database=proxied(quiet.journal_url, proxy))
            cut_off.order("stop", action("charge").sent)
            placing = asyncio.create_task(quiet.place("b", order_id))
            await stands_still(quiet, "b")
            proxy.silent = True
            cut_off.send(signal.SIGCONT)
            await quiet.start("a")
            assert await quiet.ended(order_id) == "COMPLETED"
            placing.cancel()
            await asyncio.gather(placing, return_exceptions=True)
            await cut_off.kill()
        assert await quiet.effects(order_id) == CONFIRMED


class TestTheDatabase:
    async def test_that_takes_no_writes_acknowledges_nothing_and_later_goes_on(self, quiet: World):
        order_id = new_order()
        database = quiet.journal_url.rpartition("/")[2]
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        await quiet.journal.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
        await quiet.journal.execute(f"SELECT pg_terminate_backend(pid) {others} AND application_name LIKE 'amends %'")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await insist(lambda: quiet.runs("a").StartRun(quiet.request(order_id), timeout=1), timedelta(seconds=1))
        assert refused.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        assert await quiet.row(order_id) is None
        assert "journal.unreachable" in quiet.processes["a"].log()
        async with quiet.journal.acquire() as connection:
            await connection.execute("SET default_transaction_read_only = off")
            await connection.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only")
            await connection.execute(f"SELECT pg_terminate_backend(pid) {others} AND application_name LIKE 'amends %'")
        await quiet.place("a", order_id)
        await as_it_should_be(quiet, order_id, ACCEPTED)

    async def test_whose_connections_are_killed_under_load_loses_nothing(self, quiet: World):
        crowd = [new_order() for _ in range(40)]
        idle = [await asyncpg.connect(quiet.journal_url) for _ in range(40)]
        placing = asyncio.create_task(place_all(quiet, "a", crowd))
        kill = (
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name LIKE 'amends %'"
        )
        killed = 0
        while not placing.done():
            killed += await quiet.journal.fetchval(kill)
            await asyncio.sleep(0.1)
        await placing
        assert killed > 0
        for order_id in crowd:
            await as_it_should_be(quiet, order_id, ACCEPTED)
        for connection in idle:
            connection.terminate()


async def place_all(world: World, name: str, orders: list[str], at_once: int = 8) -> None:
    """Places orders, some at a time, each until it is acknowledged and has ended."""
    waiting = list(reversed(orders))

    async def customer() -> None:
        while waiting:
            order_id = waiting.pop()
            await world.place(name, order_id)
            await world.ended(order_id)

    await asyncio.gather(*(customer() for _ in range(at_once)))


class TestAClockThatIsWrong:
    @pytest.mark.parametrize("rate", [pytest.param("0.5", marks=pytest.mark.faults), "1.0", "2.0"])
    async def test_takes_no_run_from_its_owner_and_ends_none_too_early(self, quiet: World, rate: str):
        """Ten minutes forward and back, and a monotonic clock at another rate: leases are the database's."""
        orders = [new_order() for _ in range(12)]
        b = await quiet.start("b", FAULTS_CLOCK_RATE=rate)
        await quiet.apply("b", saga=SAGA.replace("deadline: 10m", "deadline: 60s"))
        numbers = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR2, signal.SIGUSR1]
        for at, order_id in enumerate(orders):
            if at % 3 == 0:
                b.send(numbers[at // 3])
            await quiet.place("b", order_id, card="tok_slow" if at % 3 == 1 else "tok_visa")
            await as_it_should_be(quiet, order_id, ACCEPTED)
        rows = await quiet.journal.fetch(
            "SELECT fence, started_at, ended_at FROM run WHERE idempotency_key = ANY($1)", orders
        )
        assert {row["fence"] for row in rows} == {1}, "nobody took a run over"
        assert all(row["ended_at"] - row["started_at"] < timedelta(minutes=1) for row in rows)
        assert "run.lost" not in b.log()
        await quiet.apply("a")


class TestParticipants:
    async def test_one_that_accepts_and_never_answers_stalls_its_runs_visibly_until_it_is_back(self, quiet: World):
        order_id, other = new_order(), new_order()
        host, _, port = quiet.addresses["participants"].rpartition(":")
        saga = SAGA.replace("deadline: 10m", "deadline: 10m\n  stalledAfter: 1s")
        async with Proxy.open(host, int(port)) as proxy:
            await quiet.apply("a", IMPATIENT, saga, payments=proxy.address)
            proxy.silent = True
            await quiet.place("a", order_id)
            row: Any = await eventually(lambda: stalled(quiet, order_id), what="it counts as stalled")
            assert (row["state"], row["step"]) == (2, "charge")
            assert row["next_attempt_at"] is not None
            await quiet.audit()
            await quiet.apply("a", IMPATIENT, SAGA)
            assert await quiet.ended(order_id) == "COMPENSATED"
            assert await quiet.effects(order_id) == list(DECLINED.effects)
            await quiet.apply("a")
            await quiet.place("a", other)
            await as_it_should_be(quiet, other, ACCEPTED)

    async def test_that_ask_their_callers_to_connect_again_all_the_time_lose_no_order(self, quiet: World):
        """GOAWAY every 200 ms."""
        orders = [new_order() for _ in range(40)]
        await quiet.processes["participants"].kill()
        await quiet.start_participants(AMENDS_MAX_CONNECTION_AGE="200ms")
        await place_all(quiet, "a", orders)
        assert [await quiet.effects(order_id) for order_id in orders] == [CONFIRMED] * len(orders)
        await quiet.processes["participants"].kill()

    async def test_that_are_stopped_in_order_finish_what_they_began(self, quiet: World):
        order_id = new_order()
        participants = quiet.processes["participants"]
        participants.order("", "")
        placing = asyncio.create_task(quiet.place("a", order_id, card="tok_slow"))
        await eventually(lambda: "handler.done:charge:action" in participants.reached(), what="the slow charge began")
        participants.send(signal.SIGTERM)
        assert await asyncio.wait_for(participants.ended, 20) == 0
        assert "commit.answered:charge:action" in participants.reached()
        await quiet.start_participants()
        await placing
        await as_it_should_be(quiet, order_id, ACCEPTED)


async def stalled(world: World, order_id: str) -> Any:
    row = await world.row(order_id)
    return row if row["stalled_since"] is not None else None


class TestStoppingInOrder:
    async def test_an_orchestrator_hands_its_runs_over_without_waiting_for_its_lease(self, quiet: World):
        order_id, a = new_order(), quiet.processes["a"]
        await quiet.start("b", AMENDS_LEASE="30s")
        a.order("", "")
        placing = asyncio.create_task(quiet.place("a", order_id, card="tok_slow"))
        await eventually(lambda: action("charge").sent in a.reached(), what="the slow charge is under way")
        a.send(signal.SIGTERM)
        assert await asyncio.wait_for(a.ended, 20) == 0
        assert await quiet.ended(order_id, within=LEASE) == "COMPLETED"
        row = await quiet.row(order_id)
        assert row["fence"] <= 2
        assert await quiet.effects(order_id) == CONFIRMED
        await quiet.start("a")
        await placing

    @pytest.mark.timeout(180)
    async def test_every_process_is_restarted_in_turn_while_orders_run(self, quiet: World):
        orders = [new_order() for _ in range(60)]
        await quiet.start("b")
        placing = asyncio.gather(place_all(quiet, "a", orders[::2], 4), place_all(quiet, "b", orders[1::2], 4))
        for name in ("participants", "a", "b", "participants", "b", "a"):
            process = quiet.processes[name]
            process.send(signal.SIGTERM)
            assert await asyncio.wait_for(process.ended, 30) == 0
            await (quiet.start_participants() if name == "participants" else quiet.start(name))
            await asyncio.sleep(0.1)
        await placing
        for order_id in orders:
            await as_it_should_be(quiet, order_id, ACCEPTED)
