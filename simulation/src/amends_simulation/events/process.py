"""One process of a service: the real relay and two real consumers over the simulated database and broker.

It can stand still for longer than its lease, and be killed in the middle of anything. Called by `world`.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import asyncpg
from amends_events import Batches, CloudEvent, Consumer, Outbox, Relay, TransientError

from amends_simulation.events.log import SimulatedBroker, SimulatedLog
from amends_simulation.events.statements import NOTE, PAY
from amends_simulation.events.tables import EventTables, SimulatedEventPool, SimulatedSession
from shop.payments.events.v1.payments_pb2 import PaymentRefunded, PaymentTaken

LEASE = timedelta(seconds=4)
SOURCE = "/shop/payments"
FOLLOWS, SEES = "follows", "sees"
"""The consumers: one takes payments and refunds each; one sees all that happens, in batches."""
ProcessFate = Callable[[str, CloudEvent], Exception | None]
"""Says what a consumer's handler raises for an event."""


def outbox() -> Outbox:
    """Return the outbox of a process or of a writer."""
    return Outbox(SOURCE, [PaymentTaken, PaymentRefunded])


class EventsProcess:
    """One process; several of them share the partitions of relay and consumers."""

    def __init__(self, name: str, tables: EventTables, log: SimulatedLog, fate: ProcessFate) -> None:
        self.name = name
        self._tables = tables
        self._fate = fate
        self._open = asyncio.Event()
        self._open.set()
        self._sessions: list[SimulatedSession] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._dead = False
        self._outbox = outbox()
        broker: Any = SimulatedBroker(log, self.gate)
        pool: Any = SimulatedEventPool(self.connect)
        self._relay = Relay(self.connect, self._outbox, broker, lease=LEASE)  # type: ignore[arg-type]  # what it uses
        types = (PaymentTaken, PaymentRefunded)
        self.consumers = (
            Consumer(FOLLOWS, pool, broker, {PaymentTaken: self._follow}, lease=LEASE),
            Consumer(SEES, pool, broker, Batches(types, self._see), lease=LEASE),
        )

    async def gate(self) -> None:
        """Wait while the process stands still."""
        await self._open.wait()

    async def connect(self) -> SimulatedSession:
        """Open a session. Raises OSError while the database is away, or when the process is dead."""
        await self.gate()
        if self._tables.away or self._dead:
            await asyncio.sleep(0.05)
            raise ConnectionRefusedError("the database is away")
        session = SimulatedSession(self._tables, self.gate)
        self._sessions.append(session)
        return session

    def start(self) -> None:
        """Begin to publish and to consume."""
        for work in (self._relay.run(), *(consumer.run() for consumer in self.consumers)):
            self._tasks.append(asyncio.create_task(work))

    async def pause(self, by: float) -> None:
        """Stand still for some seconds."""
        self._open.clear()
        await asyncio.sleep(by)
        self._open.set()

    async def kill(self) -> None:
        """End at once: nothing is given back, and the server ends the sessions. Raises what ended a task before."""
        self._dead = True
        for session in self._sessions:
            session.terminate()
        ended = [task for task in self._tasks if task.done()]
        for task in self._tasks:
            task.cancel()
        self._open.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for task in ended:
            task.result()

    async def leave(self) -> None:
        """End in order: partitions are given back."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.kill_sessions()

    async def kill_sessions(self) -> None:
        """End what is still open at the server."""
        for session in self._sessions:
            session.terminate()

    async def _follow(self, connection: Any, event: CloudEvent, message: PaymentTaken) -> None:
        """Have an effect, and publish what follows from it."""
        await connection.execute(NOTE, FOLLOWS, event.event_id, event.key, event.version)
        if (error := self._fate(FOLLOWS, event)) is not None:
            raise error
        row = self._outbox.row(PaymentRefunded(order_id=message.order_id))
        await connection.execute(PAY, message.order_id, *row.values)

    async def _see(self, connection: Any, events: Any) -> None:
        for event, _ in events:
            await connection.execute(NOTE, SEES, event.event_id, event.key, event.version)
            if (error := self._fate(SEES, event)) is not None:
                raise error


AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
"""What a database that is not there raises."""
NOT_NOW = TransientError("not now")
