"""One seed, one world: writers, relays and consumers, a database and a broker, all of which fail; then all is well.

`simulate_events` says what broke. Called by the tests, by `make soak`, and by `python -m amends_simulation --events`,
which replays a seed.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from unittest.mock import patch
from uuid import UUID

from amends_events import CloudEvent, Topic, event_type
from amends_events import outbox as outboxes
from amends_events import partition as reading
from amends_events import relay as relaying
from amends_events import topics as contracts
from amends_events.laws import EventLaw
from amends_events.parked import _DECIDE, ParkedReason

from amends_simulation.events import verdict
from amends_simulation.events.log import SimulatedBroker, SimulatedLog
from amends_simulation.events.process import AWAY, FOLLOWS, NOT_NOW, SEES, EventsProcess, outbox
from amends_simulation.events.statements import PAY, STATEMENTS
from amends_simulation.events.tables import EventTables, SimulatedSession
from amends_simulation.virtual import DeadlockError, run_virtually, seconds
from amends_simulation.world import SeedResult
from shop.payments.events.v1.payments_pb2 import PaymentTaken

STORM = 6.0
"""Seconds for which things go wrong."""
PATIENCE = 240.0
"""Seconds after which, with everything well, all must have had their effects."""
STEADY = 4
"""So many looks in a row, a second apart, have to find everything seen."""
PARTITIONS = 2
EventTweak = Callable[["EventsSimulation"], None]


def simulate_events(seed: int, tweak: EventTweak | None = None) -> SeedResult:
    """Live through one seed. `tweak` may break the world before it begins."""
    before = random.getstate()
    random.seed(seed)  # back-off draws its jitter there
    world = EventsSimulation(seed)
    log = logging.getLogger("amends_events")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with world.in_force():
            run_virtually(world.live(tweak))
    except DeadlockError as deadlock:
        world.findings.append(EventLaw.END.broken(str(deadlock)))
    finally:
        log.setLevel(level)
        random.setstate(before)
    return world.outcome()


class EventsSimulation:
    """Everything that one seed simulates."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = random.Random(seed)  # noqa: S311 - a simulation
        self.findings: list[str] = []
        self.trace: list[str] = []
        self.tables = EventTables(self.chance, dict(STATEMENTS))
        self.log = SimulatedLog(self.chance, atomic=self.chance.random() < 0.5)
        self.processes: list[EventsProcess] = []
        self.keys = [f"o-{number}" for number in range(self.chance.choice((1, 3, 8)))]
        self.poison: set[tuple[str, str]] = set()
        """Which consumer fails at which key, until it is mended."""
        self.unsure = 0.0
        """How often a handler says that it cannot now."""
        self.skipped: set[tuple[str, UUID]] = set()
        """Events that a person had a consumer leave out."""
        self.stood = 0
        """How many partitions of consumers could not be read on in the end."""
        self._started = 0
        self._tasks: list[asyncio.Task[Any]] = []

    def tell(self, text: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{seconds():8.3f}  {text}")

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Have events look less often than on a real machine, ids by chance of the seed, and fewer partitions."""
        topic = Topic(str(PaymentTaken.DESCRIPTOR.file.package), PARTITIONS)
        with (
            patch.object(contracts, "topic_of", lambda _: topic),
            patch.object(outboxes, "new_event_id", lambda: UUID(int=self.chance.getrandbits(128), version=4)),
            patch.object(relaying, "POLL_MIN", timedelta(milliseconds=300)),
            patch.object(relaying, "POLL_MAX", timedelta(milliseconds=1500)),
            patch.object(relaying, "CLAIM_EVERY", timedelta(seconds=2)),
            patch.object(relaying, "TRAIL", timedelta(seconds=8)),
            patch.object(reading, "WAIT", timedelta(milliseconds=1600)),
        ):
            yield

    # ------------------------------------------------------------ the story

    async def live(self, tweak: EventTweak | None) -> None:
        """Storm, then calm, then judgement."""
        self._worsen()
        if tweak is not None:
            tweak(self)
        await SimulatedBroker(self.log, _always).ensure([event_type(PaymentTaken).topic], timedelta(hours=1))
        for _ in range(self.chance.choice((1, 1, 2))):
            self._add_process()
        for number in range(self.chance.randint(1, 3)):
            self._begin(self._write(number))
        await self._storm()
        await self._calm()
        await self._await_end()
        self.findings += verdict.judge(self.tables, self.log, self.skipped)
        for process in self.processes:
            await process.kill()

    def _begin(self, work: Any) -> None:
        self._tasks.append(asyncio.create_task(work))

    def _worsen(self) -> None:
        """Choose how bad it is: most worlds have a few kinds of fault, often."""
        chance, faults = self.chance, self.log.faults

        def some(most: float) -> float:
            return chance.choice((0.0, 0.0, most / 4, most))

        self.tables.lost, self.tables.slow = some(0.1), some(0.1)
        faults.lost, faults.unheard, faults.half = some(0.2), some(0.3), some(0.3)
        faults.late, faults.refused, faults.deaf = some(0.2), some(0.2), some(0.2)
        self.unsure = some(0.2)
        if chance.random() < 0.4:
            self.poison = {(chance.choice((FOLLOWS, SEES)), chance.choice(self.keys))}

    def fate(self, consumer: str, event: CloudEvent) -> Exception | None:
        """Return what a handler raises for an event."""
        if (consumer, event.key) in self.poison:
            return ValueError("poison")
        return NOT_NOW if self.chance.random() < self.unsure else None

    def _add_process(self) -> EventsProcess:
        self._started += 1
        process = EventsProcess(f"p{self._started}", self.tables, self.log, self.fate)
        process.start()
        self.processes.append(process)
        self.tell(f"{process.name} starts")
        return process

    async def _write(self, number: int) -> None:
        """Change payments, one or several in a transaction, some of which are rolled back."""
        box = outbox()
        while seconds() < STORM:
            await asyncio.sleep(self.chance.expovariate(2.0))
            keys = sorted(self.chance.sample(self.keys, self.chance.randint(1, min(3, len(self.keys)))))
            session = SimulatedSession(self.tables, _always)
            try:
                await session.execute("BEGIN; SET LOCAL idle_in_transaction_session_timeout = 5000")
                for key in keys:
                    await session.fetch(PAY, key, *box.row(PaymentTaken(order_id=key)).values)
                    await asyncio.sleep(self.chance.choice((0.0, 0.0, 0.3, 2.0)))
                end = self.chance.choice(("COMMIT", "COMMIT", "COMMIT", "ROLLBACK"))
                await session.execute(end)
                self.tell(f"writer {number} changes {' and '.join(keys)}: {end}")
            except AWAY as error:
                self.tell(f"writer {number} does not know about {' and '.join(keys)}: {type(error).__name__}")
            finally:
                session.terminate()

    # ------------------------------------------------------------ what goes wrong

    async def _storm(self) -> None:
        while seconds() < STORM:
            await asyncio.sleep(self.chance.expovariate(1 / 1.2))
            wrong = (self._pause, self._kill, self._leave, self._database_away, self._broker_away, self._forget)
            await self.chance.choice(wrong)()

    async def _pause(self) -> None:
        process, by = self.chance.choice(self.processes), self.chance.uniform(1, 6)
        self.tell(f"{process.name} stands still for {by:.1f} s")
        self._begin(process.pause(by))

    async def _kill(self) -> None:
        process = self._replaced()
        self.tell(f"{process.name} is killed")
        await process.kill()

    async def _leave(self) -> None:
        process = self._replaced()
        self.tell(f"{process.name} is asked to leave")
        self._begin(process.leave())

    def _replaced(self) -> EventsProcess:
        """Start another process, and return the one that makes way for it."""
        self._add_process()
        return self.processes.pop(self.chance.randrange(len(self.processes) - 1))

    async def _database_away(self) -> None:
        self.tell("the database is away")
        self.tables.away = True
        await asyncio.sleep(self.chance.uniform(0.5, 4))
        self.tables.away = False
        self.tell("the database is back")

    async def _broker_away(self) -> None:
        self.tell("the broker is away")
        self.log.faults.away = True
        await asyncio.sleep(self.chance.uniform(0.5, 4))
        self.log.faults.away = False
        self.tell("the broker is back")

    async def _forget(self) -> None:
        """Let the log of a partition drop all but its end, read or not: whoever had begun to read it has to stop."""
        place = self.chance.choice(sorted(self.log.records))
        first = len(self.log.records[place]) + 1 - self.chance.choice((0, 0, 1, 3))
        if first > self.log.first[place] and verdict.all_have_begun(self.tables, place):
            self.log.forget(place, first)
            self.tell(f"the log of {place[1]} forgets what is before {first}")

    async def _calm(self) -> None:
        """From now on nothing goes wrong any more, and people do what only people can."""
        self.tell("all is well from now on")
        self.tables.lost = self.tables.slow = self.unsure = 0.0
        faults = self.log.faults
        faults.lost = faults.unheard = faults.half = faults.late = faults.refused = faults.deaf = 0.0
        await asyncio.sleep(6)  # who stood still goes on, and whoever lost its place has seen it
        standing = verdict.standing(self.tables, self.log)
        self.stood = len(standing)
        self.findings += verdict.hidden(standing, (one for process in self.processes for one in process.consumers))
        self.log.restore()
        self.tell("the log has again what it had forgotten")
        self.poison = set()
        self._begin(self._person())

    async def _person(self) -> None:
        """Decide about each parked event: again, or left out."""
        while True:
            await asyncio.sleep(1)
            for place, row in list(self.tables.table("inbox_parked").items()):
                if row["released_at"] is None and row["decision"] is None and row["reason"] != ParkedReason.AFTER:
                    decision = self.chance.choice(("retry", "retry", "skip"))
                    session = SimulatedSession(self.tables, _always)
                    await session.execute(_DECIDE, *place, decision, "somebody", "it is mended")
                    self.tell(f"a person says about {place[0]} {place[3]} of {place[2]}: {decision}")
                    if decision == "skip":
                        self.skipped.add((place[0], row["event_id"]))

    async def _await_end(self) -> None:
        """Wait until everything was seen and nothing that is late has come for some seconds."""
        well = 0
        while seconds() < STORM + PATIENCE and well < STEADY:
            await asyncio.sleep(1)
            seen = not self.tables.table("outbox") and verdict.all_seen(self.tables, self.skipped)
            well = well + 1 if seen else 0

    def outcome(self) -> SeedResult:
        """Return the result of the seed: changes, effects, decisions, and how often a partition was taken."""
        taken = sum(row["fence"] for row in self.tables.table("inbox_position").values())
        decisions = sum("a person says" in line for line in self.trace)
        ends = {"parked": len(self.tables.table("inbox_parked")), "stood": self.stood}
        runs, calls = len(self.tables.told), len(self.tables.effects)
        return SeedResult(self.seed, self.findings, self.trace, ends, runs, calls, decisions, taken)


async def _always() -> None:
    """Let through: this process never stands still."""
