"""The broker is away under load, a transaction stands idle: who commits does not notice, and all follows in order."""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import timedelta

import asyncpg
import pytest
from amends_events import Meter, Relay, Silent
from amends_events import relay as relaying_module
from amends_testkit.waiting import eventually

from shop.payments.events.v1.payments_pb2 import PaymentTaken

from .conftest import RETENTION
from .test_relay import emptied, log_of
from .world import answers, outbox, own_nats, pay, relaying

KEYS = [f"o-{number}" for number in range(50)]
RATE = 50
"""Changes a second."""


@dataclass
class Load:
    """Changes of payments at an even rate, each timed."""

    pool: asyncpg.Pool
    committed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KEYS, 0))

    async def during(self, seconds: float) -> list[float]:
        """Return how long each change took, sorted."""
        box = outbox()
        loop, took = asyncio.get_running_loop(), []
        end = loop.time() + seconds

        async def change(key: str) -> None:
            began = time.perf_counter()
            await pay(self.pool, box, key)
            took.append(time.perf_counter() - began)
            self.committed[key] += 1

        number, next_at = 0, loop.time()
        async with asyncio.TaskGroup() as group:
            while loop.time() < end:
                group.create_task(change(KEYS[number % len(KEYS)]))
                number, next_at = number + 1, next_at + 1 / RATE
                await asyncio.sleep(max(0.0, next_at - loop.time()))
        return sorted(took)


class Backlog(Silent):
    """Keeps what the relay says about the outbox."""

    def __init__(self) -> None:
        self.most = 0
        self.failures = 0

    def backlog(self, rows: int, oldest: timedelta) -> None:
        self.most = max(self.most, rows)

    def publish_failed(self, topic: str, reason: str) -> None:
        self.failures += 1


def p99(took: list[float]) -> float:
    return took[len(took) * 99 // 100]


@pytest.mark.parametrize(
    ("away", "beside"),
    [(1.5, 0.5), pytest.param(300.0, 60.0, marks=[pytest.mark.faults, pytest.mark.timeout(900)])],
    ids=["moments", "five minutes"],
)
async def test_while_the_broker_is_away_nobody_waits_and_no_key_is_overtaken(
    pool, events_url, tmp_path, monkeypatch, record_property, away, beside
):
    monkeypatch.setattr(relaying_module, "BACKLOG_EVERY", timedelta(milliseconds=200))
    load, backlog = Load(pool), Backlog()
    told: Meter = backlog
    async with own_nats(tmp_path) as (server, broker):
        await broker.ensure(outbox().topics, RETENTION)
        async with relaying(events_url, outbox(), broker, meter=told):
            before = await load.during(beside)
            server.kill()
            during = await load.during(away)
            waiting = await pool.fetchval("SELECT count(*) FROM outbox")
            await server.restart()
            await eventually(lambda: answers(broker))
            began = time.perf_counter()
            await emptied(pool)
            drained = time.perf_counter() - began
            after = await load.during(beside)
            await emptied(pool)
        assert waiting > away * RATE * 0.7
        assert backlog.most > 0
        assert backlog.failures > 0
        found = await log_of(broker)
    assert {key: len(versions) for key, versions in found.items()} == load.committed
    assert all(versions == sorted(versions) for versions in found.values())
    calm = [p99(before), p99(after)]
    record_property(
        "counted",
        f"broker away for {away:.0f} s: p99 of a change {p99(during) * 1000:.1f} ms, before and after"
        f" {calm[0] * 1000:.1f} and {calm[1] * 1000:.1f}; {waiting} events drained in {drained:.1f} s",
    )
    if away > 60:  # a few seconds say more about the machine than about the broker
        assert p99(during) <= 1.2 * max(calm)


async def test_a_transaction_that_stands_idle_slows_the_relay_by_less_than_half_and_is_ended(
    pool, events_url, either_broker, monkeypatch
):
    """Of ten minutes in seconds: what was deleted meanwhile cannot be removed, and nothing walks over it again."""
    monkeypatch.setattr(relaying_module, "TRAIL", timedelta(milliseconds=300))
    await either_broker.ensure(outbox().topics, RETENTION)
    relay = Relay(lambda: asyncpg.connect(events_url), outbox(), either_broker)
    async with relay._session() as connection:

        async def drain(events: int) -> float:
            await pool.executemany(
                "INSERT INTO outbox (event_id, topic, partition, key, type, dataschema, headers, payload, version)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 1)",
                [outbox().row(event).values for event in (payment(number) for number in range(events))],
            )
            began, published = time.perf_counter(), 0
            while published < events:
                published += await relay.publish_once(connection)
            return events / (time.perf_counter() - began)

        await drain(200)
        without = [await drain(1000) for _ in range(3)]
        idle = await asyncpg.connect(events_url)
        try:
            await idle.execute("SET idle_in_transaction_session_timeout = '2min'")
            await idle.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            await idle.fetchval("SELECT count(*) FROM outbox")
            beside = [await drain(1000) for _ in range(5)]
            assert max(beside[-3:]) >= 0.5 * max(without)
            await idle.execute("SET LOCAL idle_in_transaction_session_timeout = 100")

            async def ended() -> bool:
                alive = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1"
                return not await pool.fetchval(alive, idle.get_server_pid())

            await eventually(ended)
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
                await idle.fetchval("SELECT 1")
        finally:
            idle.terminate()


def payment(number: int) -> PaymentTaken:
    return PaymentTaken(order_id=f"o-{number}", payment_id="p" * 200)
