"""The cost of the barrier: a guarded action against the same business transaction without it, on the same Postgres.

Run by hand (`python libs/barrier/bench/cost.py`) and by the benchmark suite. Rounds of both sides alternate; the
figure is the median of the rounds' ratios. Both make the same effects through the same pool; the plain side is what a
service without the barrier would write: `async with connection.transaction()`.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
from amends_barrier import Barrier, connection
from amends_barrier.guard import Guard
from amends_barrier.protocol import GuardedCall, Operation, digest
from amends_embedded import Postgres

# A payment and its double entry: what the shop's payments do for a charge.
TABLES = """
CREATE TABLE payment (
    payment_id text PRIMARY KEY, order_id text NOT NULL UNIQUE, minor bigint NOT NULL CHECK (minor > 0),
    charged_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE entry (
    entry_id text PRIMARY KEY, payment_id text NOT NULL REFERENCES payment, at timestamptz NOT NULL DEFAULT now());
CREATE TABLE posting (
    entry_id text NOT NULL REFERENCES entry, account text NOT NULL, minor bigint NOT NULL,
    PRIMARY KEY (entry_id, account));
"""
REQUEST, RESPONSE = b"\x0a\x24" + b"r" * 200, b"\x0a\x24" + b"p" * 40


async def business(held: Any, order: str) -> None:
    """Charge an order: insert its payment."""
    payment = await held.fetchval(
        "INSERT INTO payment (payment_id, order_id, minor) VALUES ($1, $2, $3)"
        " ON CONFLICT (order_id) DO NOTHING RETURNING payment_id",
        f"pay_{order}",
        order,
        100,
    )
    await held.execute("INSERT INTO entry (entry_id, payment_id) VALUES ($1, $2)", f"ent_{order}", payment)
    await held.execute(
        "INSERT INTO posting (entry_id, account, minor) SELECT $1, p.* FROM unnest($2::text[], $3::bigint[]) AS p",
        f"ent_{order}",
        ["cards", "merchant"],
        [-100, 100],
    )


async def plain(pool: Any, order: str) -> None:
    """Execute the business transaction alone."""
    async with pool.acquire() as held, held.transaction():
        await business(held, order)


def guarded(pool: Any) -> Callable[[Any, str], Awaitable[None]]:
    """Wrap it in the barrier, with digest, shield and stored response, as the interceptor runs it."""
    guard = Guard(pool)

    async def charge(_: Any, order: str) -> None:
        async def work() -> bytes:
            await business(connection(), order)
            return RESPONSE

        async def answer() -> None:
            call = GuardedCall(order * 2, Operation.ACTION)
            await guard.answer(call, digest("/shop.payments.v1.PaymentService/Charge", REQUEST), work)

        await asyncio.shield(asyncio.create_task(answer()))

    return charge


async def rate(side: Callable[[Any, str], Awaitable[None]], pool: Any, clients: int, seconds: float) -> float:
    """Return transactions per second with so many at once."""
    end = time.perf_counter() + seconds
    done = 0

    async def client() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await side(pool, uuid.uuid4().hex)
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return done / (time.perf_counter() - began)


async def measure(clients: int, rounds: int, seconds: float) -> None:
    """Print both rates and their ratio, median with minimum and maximum."""
    with tempfile.TemporaryDirectory() as folder:
        async with await Postgres.start(Path(folder)) as server:
            url = await server.create("bench", "bench")
            async with asyncpg.create_pool(url, min_size=4, max_size=max(4, min(clients, 16))) as pool:
                await pool.execute(Barrier.schema() + TABLES)
                assert await pool.fetchval("SHOW fsync") == "on"
                assert await pool.fetchval("SHOW synchronous_commit") == "on"
                with_barrier = guarded(pool)
                for side in (plain, with_barrier):
                    await rate(side, pool, clients, seconds / 2)
                ratios, rates = [], []
                for _ in range(rounds):
                    without = await rate(plain, pool, clients, seconds)
                    barrier = await rate(with_barrier, pool, clients, seconds)
                    ratios.append(barrier / without)
                    rates.append((without, barrier))
                stored = await pool.fetchval("SELECT count(*) FROM barrier WHERE response IS NOT NULL")
                assert stored == await pool.fetchval("SELECT count(*) FROM barrier") > 0
                assert await pool.fetchval("SELECT sum(minor) FROM posting") == 0
    without, barrier = (statistics.median(values) for values in zip(*rates, strict=True))
    print(
        f"{clients:3} at once: plain {without:6.0f}/s, barrier {barrier:6.0f}/s, "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )


def main() -> None:
    """Measure with one, and with many clients."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16])
    options = parser.parse_args()
    for clients in options.clients:
        asyncio.run(measure(clients, options.rounds, options.seconds))


if __name__ == "__main__":
    main()
