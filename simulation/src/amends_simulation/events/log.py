"""A broker that does what the port allows: it loses answers, stores half of a batch, is late, refuses, and forgets.

Called by `world`. Every process has a client of it, which stands still with the process.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import TypeAlias

from amends_events import AppendRefusedError, Ends, EventRecord, LogEntry, PositionLostError, Topic, UnknownError

from amends_simulation.events.tables import EventGate

LogPlace: TypeAlias = tuple[str, int]


@dataclass
class BrokerFaults:
    """The faults of the broker, each as a chance. With all off it does at once what it is asked."""

    lost: float = 0.0
    """How often an append does not arrive."""
    unheard: float = 0.0
    """How often it is stored and its answer is lost."""
    half: float = 0.0
    """How often a part of it is stored and there is no answer; not of a broker with atomic batches."""
    late: float = 0.0
    """How often it is stored seconds after its caller has given up."""
    refused: float = 0.0
    """How often the broker says no."""
    deaf: float = 0.0
    """How often a reader hears an error instead of a batch."""
    away: bool = False


@dataclass
class SimulatedLog:
    """The records of all partitions, since ever; what is before `first` has been forgotten."""

    chance: Random
    atomic: bool
    """A batch is stored whole or not at all, and what is known already is not stored again: as NATS does, not Kafka."""
    faults: BrokerFaults = field(default_factory=BrokerFaults)
    records: dict[LogPlace, list[EventRecord]] = field(default_factory=dict)
    first: dict[LogPlace, int] = field(default_factory=dict)

    def store(self, place: LogPlace, records: Sequence[EventRecord]) -> int:
        """Store records as the kind of broker does; return how many were there already."""
        there = self.records[place]
        if not self.atomic:
            there += records
            return 0
        known = {record.attributes["id"] for record in there}
        there += [record for record in records if record.attributes["id"] not in known]
        return sum(record.attributes["id"] in known for record in records)

    def forget(self, place: LogPlace, first: int) -> None:
        """Forget what is before a position."""
        self.first[place] = max(self.first[place], min(first, len(self.records[place]) + 1))

    def restore(self) -> None:
        """Have everything again that was forgotten, as from a copy."""
        self.first = dict.fromkeys(self.first, 1)


class SimulatedBroker:
    """The broker port over the log, for one process."""

    def __init__(self, log: SimulatedLog, gate: EventGate) -> None:
        self._log = log
        self._gate = gate

    async def ensure(self, topics: Sequence[Topic], retention: timedelta) -> None:
        """Make the partitions that are not there."""
        for topic in topics:
            for partition in range(topic.partitions):
                self._log.records.setdefault((topic.name, partition), [])
                self._log.first.setdefault((topic.name, partition), 1)

    async def append(self, topic: str, partition: int, records: Sequence[EventRecord]) -> int:
        """Store records, unless something goes wrong: before, in the middle, or after."""
        await self._answers()
        log, chance, faults, place = self._log, self._log.chance, self._log.faults, (topic, partition)
        odds = {"lost": faults.lost, "refused": faults.refused, "late": faults.late}
        [fate] = chance.choices([*odds, ""], [*odds.values(), 1 - sum(odds.values())])
        if fate == "refused":
            raise AppendRefusedError("the log is full")
        if fate == "late":
            later = chance.uniform(0.1, 2.5)
            asyncio.get_running_loop().call_later(later, log.store, place, list(records))
        if fate:
            await asyncio.sleep(0.1)
            raise UnknownError("there was no answer")
        if not log.atomic and chance.random() < faults.half:
            log.store(place, records[: chance.randint(0, len(records))])
            raise UnknownError("there was no answer")
        duplicates = log.store(place, records)
        await asyncio.sleep(chance.uniform(0.001, 0.01))
        await self._gate()
        if chance.random() < faults.unheard:
            raise UnknownError("there was no answer")
        return duplicates

    async def read(
        self, topic: str, partition: int, after: int, *, limit: int = 100, wait: timedelta = timedelta(seconds=1)
    ) -> AsyncGenerator[list[LogEntry], None]:
        """Read on after a position."""
        log, place = self._log, (topic, partition)
        while True:
            await self._answers()
            there = log.records[place]
            if log.chance.random() < log.faults.deaf:
                raise UnknownError("the reader is deaf")
            if after + 1 < log.first[place] or after > len(there):
                raise PositionLostError(f"there is nothing after {after}")
            found = there[after : after + min(limit, log.chance.randint(1, 100))]
            if not found:
                await asyncio.sleep(wait.total_seconds())
            yield [LogEntry(after + number, record) for number, record in enumerate(found, 1)]
            after += len(found)

    async def ends(self, topic: str) -> dict[int, Ends]:
        """Return the ends of all partitions."""
        await self._answers()
        return {
            number: Ends(self._log.first[name, number], len(records))
            for (name, number), records in self._log.records.items()
            if name == topic
        }

    async def close(self) -> None:
        """There is nothing to close."""

    async def _answers(self) -> None:
        await self._gate()
        await asyncio.sleep(self._log.chance.uniform(0.001, 0.01))
        if self._log.faults.away:
            await asyncio.sleep(0.1)
            raise UnknownError("the broker is away")
