"""One orchestrator process of a simulation: the real runner, writer, claims and lease over a false world.

It can be paused for longer than its lease, killed, and let go of its runs as at a rolling restart. Called by `world`.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import asyncpg
from amends_orchestrator.announcer import Announcer
from amends_orchestrator.calls.guards import Guards
from amends_orchestrator.calls.router import Router
from amends_orchestrator.calls.sender import Sender
from amends_orchestrator.journal import claims
from amends_orchestrator.journal.telling import Announcement
from amends_orchestrator.journal.writer import JournalWriter
from amends_orchestrator.runner.claimer import Claimer
from amends_orchestrator.runner.fleet import Fleet, Limits
from amends_orchestrator.runner.heartbeat import Heartbeat
from amends_orchestrator.runner.host import RunHost
from amends_orchestrator.runner.live import LiveRun
from amends_orchestrator.runner.starts import RunStarts
from amends_resilience import NamedPolicy, RetryPolicy, Selector
from amends_saga.definition import Document, read
from amends_saga.definition.resources import Participant

from amends_simulation.database import SimulatedConnection, SimulatedDatabase, SimulatedPool
from amends_simulation.participants import SimulatedDefinition
from amends_simulation.virtual import VirtualClock, WrongClock
from amends_simulation.wire import SimulatedChannels

LEASE = timedelta(seconds=3)
PATIENCE = timedelta(seconds=1)
"""How long a run that waits stays in memory."""
RESTART = 0.5
"""Seconds after which a process that could not start is started again."""
AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
"""What a database that is not there raises."""
POLL = timedelta(seconds=1)
PARTICIPANT = """---
apiVersion: amends.dev/v1alpha1
kind: Participant
metadata: {{name: {name}, namespace: test}}
spec: {{service: {service}, target: "127.0.0.1:1", methods: ["*"], callers: [test]}}
"""


class Process:
    """One orchestrator process of the simulation."""

    def __init__(
        self,
        name: str,
        chance: Random,
        database: SimulatedDatabase,
        definitions: "SimulatedDefinitions",
        participants: Sequence[Participant],
        policy: RetryPolicy,
        wire: Callable[["Process"], SimulatedChannels],
        tell: Callable[[str], None],
    ) -> None:
        self.name = name
        self._tell = tell
        self.id = UUID(int=chance.getrandbits(128), version=4)
        self.wire = wire(self)
        self.definitions = definitions
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: list[asyncio.Task[None]] = []
        self._database = database
        self.pool = SimulatedPool(database, self.gate)
        ids = WrongClock(chance)
        router = Router(self.wire, Guards(VirtualClock(), chance))
        router.put(participants, [("test", NamedPolicy("policy", Selector(), policy))])
        self.writer = JournalWriter(self.connect)
        # Every second process is crowded: what waits leaves its memory, what is started there waits for another.
        limits = Limits(hot_runs=3 if name.endswith(("2", "4", "6", "8", "0")) else 2000, passivate_after=PATIENCE)
        announcer = Announcer(publish=True, wanted=lambda *_: ("hook",))
        self.host = RunHost(self.writer, router, Sender(_no_spans), ids, announcer)
        self.host.hold_secret(b"the same for every process")
        self.fleet = Fleet(self.id, self.host, self._release_claim, limits)
        self.starts = RunStarts(self.host, self.fleet)
        self.heartbeat = Heartbeat(self.id, name, LEASE, self.connect, ids)
        self.claimer = Claimer(self.fleet, definitions, self.connect, NoRequests(), POLL)

    async def gate(self) -> None:
        """Wait while the process is paused."""
        await self._open.wait()

    async def connect(self) -> Any:
        """Open a connection to the database. Raises OSError while it is away."""
        await self.gate()
        if self._database.faults.away:
            await asyncio.sleep(0.05)
            raise ConnectionRefusedError("the database is away")
        return SimulatedConnection(self._database, self.gate)

    async def start(self) -> None:
        """Begin to work as the orchestrator does: with a lease, and the database's time, before anything else."""
        while not self.host.leased():
            try:
                await self.heartbeat.beat(self.host)
            except AWAY as error:  # the process ends, and another is started in its place
                self._tell(f"{self.name} does not come up: {type(error).__name__}")
                await asyncio.sleep(RESTART)
        for work in (self.heartbeat.run(self.host), self.writer.run(), self.claimer.run()):
            self._tasks.append(asyncio.create_task(work))

    async def pause(self, by: float) -> None:
        """Stand still: nothing leaves, and nothing that comes is noticed, until time has passed."""
        self._open.clear()
        await asyncio.sleep(by)
        self._open.set()

    async def kill(self) -> None:
        """End at once; what was not waited for is lost."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.fleet.stop()
        self._open.set()

    async def leave(self) -> None:
        """End as at a rolling restart: let go of all runs, and of the lease."""
        await self.fleet.drain(timedelta(seconds=4))
        await self.heartbeat.end()
        await self.kill()

    async def _release_claim(
        self, run_id: UUID, fence: int, after: timedelta, reason: str, message: str, event: Announcement | None
    ) -> None:
        async with self.pool.acquire() as connection:
            await claims.release(connection, run_id, fence, after, reason, message, event)


class SimulatedDefinitions:
    """Definitions by their digest."""

    def __init__(self, by_digest: dict[bytes, SimulatedDefinition]) -> None:
        self._by_digest = by_digest

    async def pinned(self, digest: bytes) -> SimulatedDefinition:
        """Return the definition with that digest."""
        return self._by_digest[digest]


def participants_of(services: Iterable[str]) -> Sequence[Participant]:
    """Return a Participant for each service."""
    texts = [PARTICIPANT.format(name=f"p{i}", service=service) for i, service in enumerate(services)]
    resources = read([Document("participants", "".join(texts))])
    assert not resources.findings, resources.findings
    return resources.participants


def _no_spans(name: str, traceparent: str, attributes: dict[str, str]) -> AbstractContextManager[None]:
    return nullcontext()


class NoRequests:
    """Asks nothing of runs through the database."""

    async def asked(self, connection: Any, runs: list[UUID]) -> dict[UUID, Any]:
        """Return no request: no person asks through the database here."""
        return {}

    async def adopted(self, connection: Any, runs: list[LiveRun]) -> None:
        """Do nothing: no request waits for an answer."""
