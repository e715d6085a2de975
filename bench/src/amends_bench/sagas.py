"""Sagas against a peer, and against the same calls without durability."""

from collections.abc import Mapping
from typing import Any

from rich.progress import Progress

from amends_bench import peers, world
from amends_bench.generator import LoadGenerator
from amends_bench.suite import Comparison, Round, SuiteOptions, alternate
from amends_bench.verify import audit

IN_FLIGHT = 64
SAGA = "a saga of three steps"
BARE = "the same calls, not durable"


async def sagas_vs_dbos(options: SuiteOptions, progress: Progress) -> list[Comparison]:
    """Compare sagas, 64 in flight, with DBOS on the same Postgres and, if it runs, with Temporal on its own store."""
    comparison = Comparison("sagas-vs-dbos", SAGA, "DBOS, three steps in one process", "per second", 8.0)
    worked = Comparison(
        "sagas-vs-dbos processor",
        comparison.subject,
        comparison.peer,
        "per processor second",
        None,
        key="per_processor",
    )
    async with world.running() as shop, LoadGenerator() as load:
        database = await shop.postgres.create("dbos", "dbos")
        order = {"in_flight": IN_FLIGHT, "seconds": options.duration.total_seconds()}

        async def subject() -> Mapping[str, Any]:
            return await load.round("saga", shop.orchestrators, IN_FLIGHT, options.duration)

        async with peers.running("dbos_peer.py", database) as dbos:

            async def peer() -> Mapping[str, Any]:
                return await dbos.work(order)

            async def weighed(side: Round) -> Mapping[str, Any]:
                before = shop.processor_seconds(dbos.pid)
                said = await side()
                return {**said, "per_processor": said["done"] / max(shop.processor_seconds(dbos.pid) - before, 0.01)}

            await _warm(load, shop, options, ("saga",))
            await peer()
            await alternate(comparison, lambda: weighed(subject), lambda: weighed(peer), options.rounds, progress)
        found = [comparison, worked]
        if peers.installed("temporal"):
            known = Comparison(
                "sagas-vs-dbos temporal", SAGA, "Temporal's development server, three activities", "per second", None
            )
            async with peers.running("temporal_peer.py") as temporal:
                await temporal.work(order)
                await alternate(known, subject, lambda: temporal.work(order), options.rounds, progress)
            found.append(known)
        await audit(shop)
    worked.subject_rounds, worked.peer_rounds = comparison.subject_rounds, comparison.peer_rounds
    return found


async def sagas_vs_plain_calls(options: SuiteOptions, progress: Progress) -> list[Comparison]:
    """Compare sagas with bare calls, 64 in flight."""
    comparison = Comparison("sagas-vs-plain-calls", SAGA, BARE, "per second", 0.60)
    return await _against_bare(comparison, options, progress, barrier=False)


async def with_barriers(options: SuiteOptions, progress: Progress) -> list[Comparison]:
    """Compare sagas with plain calls, with the real barrier in the participants of both."""
    comparison = Comparison("with-barriers", f"{SAGA}, with barrier", f"{BARE}, with barrier", "per second", None)
    return await _against_bare(comparison, options, progress, barrier=True)


async def _against_bare(
    comparison: Comparison, options: SuiteOptions, progress: Progress, *, barrier: bool
) -> list[Comparison]:
    """By time, and by what the processors did: the second is the same however busy the machine is with other work."""
    worked = Comparison(f"{comparison.name} processor", SAGA, BARE, "per processor second", None, key="per_processor")
    async with world.running(barrier=barrier) as shop, LoadGenerator() as load:

        async def one(side: str, targets: list[str]) -> Mapping[str, Any]:
            before = shop.processor_seconds()
            said = await load.round(side, targets, IN_FLIGHT, options.duration)
            return {**said, "per_processor": said["done"] / max(shop.processor_seconds() - before, 0.01)}

        await _warm(load, shop, options, ("saga", "bare"))
        await alternate(
            comparison,
            lambda: one("saga", shop.orchestrators),
            lambda: one("bare", shop.fronts),
            options.rounds,
            progress,
        )
        await audit(shop, barrier=barrier)
    worked.subject_rounds, worked.peer_rounds = comparison.subject_rounds, comparison.peer_rounds
    return [comparison, worked]


async def latency(options: SuiteOptions, progress: Progress) -> list[Comparison]:
    """Measure how long one saga takes when nothing else is under way."""
    middle = Comparison("latency p50", SAGA, BARE, "seconds", 2.0, at_most=True, key="p50")
    slowest = Comparison("latency p99", SAGA, BARE, "seconds", 4.0, at_most=True, key="p99")
    async with world.running() as shop, LoadGenerator() as load:

        async def saga() -> Mapping[str, Any]:
            return await load.round("saga", shop.orchestrators[:1], 1, options.duration)

        async def bare() -> Mapping[str, Any]:
            return await load.round("bare", shop.fronts[:1], 1, options.duration)

        await saga()
        await bare()
        await alternate(middle, saga, bare, options.rounds, progress)
        await audit(shop)
    slowest.subject_rounds, slowest.peer_rounds = middle.subject_rounds, middle.peer_rounds
    return [middle, slowest]


async def _warm(load: LoadGenerator, shop: world.BenchProcesses, options: SuiteOptions, sides: tuple[str, ...]) -> None:
    for side in sides:
        targets = shop.orchestrators if side == "saga" else shop.fronts
        await load.round(side, targets, IN_FLIGHT, options.warm_up)
