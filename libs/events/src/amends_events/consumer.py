"""A consumer of events: shares its partitions out among its processes and reads those of this one.

A process makes one for each name under which it consumes. Several processes with the same name share the partitions.
"""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from amends_barrier import BROKEN
from amends_barrier.transaction import Pool
from google.protobuf.message import Message

from amends_events.broker import Broker, BrokerError
from amends_events.leases import Claim, Leases
from amends_events.meter import Meter, Silent
from amends_events.partition import (
    BATCH,
    BatchHandler,
    EventHandler,
    FenceLostError,
    Partition,
    Reading,
    is_transient,
    one_by_one,
)
from amends_events.topics import Topic, event_types

LEASE = timedelta(seconds=10)
CONNECTIONS = 4
"""So many connections of the pool a consumer holds at once."""
LAG_EVERY = timedelta(seconds=5)
INBOX_RETENTION = timedelta(days=14)
"""Longer than any broker keeps an event, and the longest outage: an older one that comes again has its effect again."""

_log = logging.getLogger(__name__)

_EXPIRE = """
WITH old AS (SELECT consumer, event_id FROM inbox WHERE consumer = $1 AND at < now() - $2::interval LIMIT $3)
DELETE FROM inbox AS i USING old WHERE i.consumer = old.consumer AND i.event_id = old.event_id
"""
_EXPIRE_PARKED = "DELETE FROM inbox_parked WHERE consumer = $1 AND released_at < now() - $2::interval"


@dataclass(frozen=True, slots=True)
class Batches:
    """How a consumer handles all events of a batch at once, e.g. by one statement: a projection that is rebuilt."""

    types: Sequence[type[Message]]
    handle: BatchHandler
    remembers: bool = True
    """False for a handler that knows by itself what it has handled, such as by the version of each key: it is given
    events again that the log has twice, or that are read again, and the inbox is left out."""


class Consumer:
    """Handles events under one name, in the database of `pool`."""

    def __init__(
        self,
        name: str,
        pool: Pool,
        broker: Broker,
        handlers: Mapping[type[Message], EventHandler] | Batches,
        meter: Meter | None = None,
        *,
        lease: timedelta = LEASE,
        batch: int = BATCH,
        transient: Callable[[BaseException], bool] = is_transient,
    ) -> None:
        """Handle events of the types of `handlers`; others of their topics are skipped. Raises ContractError.

        A transaction handles up to `batch` events. Let it be 1 for handlers that lock rows which events of several
        keys have in common: in batches, whose order is chance, they would wait for each other in circles.
        """
        batches = handlers if isinstance(handlers, Batches) else _each(handlers)
        types = event_types(batches.types)
        self.name = name
        self.topics: list[Topic] = sorted({one.topic for one in types.values()}, key=lambda topic: topic.name)
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._reading = Reading(
            consumer=name,
            pool=pool,
            broker=broker,
            types=types,
            handle=batches.handle,
            remembers=batches.remembers,
            meter=meter or Silent(),
            slots=asyncio.Semaphore(CONNECTIONS),
            lease=lease,
            batch=batch,
            transient=transient,
        )
        self._lease = lease
        self._leases = Leases(name, self.owner, lease)
        self._running: dict[tuple[str, int], tuple[Partition, asyncio.Task[None]]] = {}

    @property
    def partitions(self) -> list[Partition]:
        """Return the partitions that this process reads now."""
        return [partition for partition, _ in self._running.values()]

    async def run(self) -> None:
        """Consume until cancelled; then let go of the partitions. A database that is away is awaited."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._tell_lag())
                await self._keep_leases(group)
        finally:
            await self._leave()

    async def _keep_leases(self, group: asyncio.TaskGroup) -> None:
        made = False
        while True:
            try:
                async with self._reading.pool.acquire(timeout=self._lease.total_seconds()) as connection:
                    if not made:
                        await self._leases.make(connection, self.topics)
                        made = True
                    await self._beat(connection, group)
            except (*BROKEN, TimeoutError) as error:
                if not self._reading.transient(error):
                    raise
                _log.warning("consumer.database_away", extra={"consumer": self.name, "error": str(error)})
            await asyncio.sleep(self._lease.total_seconds() / 4)

    async def _beat(self, connection: Any, group: asyncio.TaskGroup) -> None:
        """Renew leases, stop what is not ours any more, and take or give up what makes our share."""
        owned = await self._leases.beat(connection)
        for place, (partition, task) in list(self._running.items()):
            if task.done():
                del self._running[place]
            elif owned.get(place) != partition.claim.fence:
                await self._stop(place)
        for place in sorted(owned.keys() - self._running.keys()):  # the answer to a claim was lost
            await self._leases.release(connection, place, owned[place])
        share = await self._leases.share(connection, sum(topic.partitions for topic in self.topics))
        for place in list(self._running)[share:]:
            partition, _ = self._running[place]
            await self._stop(place)
            await self._leases.release(connection, place, partition.claim.fence)
        if (missing := share - len(self._running)) > 0:
            for claim in await self._leases.claim(connection, self.topics, missing):
                self._begin(claim, group)

    def _begin(self, claim: Claim, group: asyncio.TaskGroup) -> None:
        partition = Partition(self._reading, claim)
        task = group.create_task(self._serve(partition))
        self._running[claim.topic, claim.partition] = (partition, task)

    async def _serve(self, partition: Partition) -> None:
        try:
            await partition.run()
        except FenceLostError:
            self._reading.meter.fence_lost(self.name)
            claim = partition.claim
            _log.warning(
                "consumer.fence_lost",
                extra={"consumer": self.name, "topic": claim.topic, "partition": claim.partition},
            )
        finally:
            self._tell_nothing(partition.claim)

    def _tell_nothing(self, claim: Claim) -> None:
        """Take back what was said of a partition: another process says it now, or nobody."""
        meter, place = self._reading.meter, (self.name, claim.topic, claim.partition)
        meter.lag(*place, 0)
        meter.keys_blocked(*place, 0)
        meter.position_lost(*place, False)

    async def _stop(self, place: tuple[str, int]) -> None:
        _, task = self._running.pop(place)
        task.cancel()
        await asyncio.wait([task])

    async def _tell_lag(self) -> None:
        while True:
            for topic in self.topics:
                with suppress(BrokerError):
                    ends = await self._reading.broker.ends(topic.name)
                    for (name, number), (partition, _) in list(self._running.items()):
                        if name == topic.name and number in ends:
                            lag = ends[number].last - max(partition.position, ends[number].first - 1)
                            self._reading.meter.lag(self.name, name, number, max(0, lag))
            await asyncio.sleep(LAG_EVERY.total_seconds())

    async def _leave(self) -> None:
        """Give everything back; what cannot be given back is free when its lease has run out."""
        fences = {place: partition.claim.fence for place, (partition, _) in self._running.items()}
        self._running.clear()
        with suppress(*BROKEN, TimeoutError):
            async with self._reading.pool.acquire(timeout=1) as connection:
                for place, fence in fences.items():
                    await self._leases.release(connection, place, fence)
                await self._leases.leave(connection)

    async def expire(self, retention: timedelta = INBOX_RETENTION, limit: int = 1_000) -> int:
        """Forget at most `limit` events that were handled longer ago than `retention`; return how many.

        Call it again until it returns 0.
        """
        async with self._reading.pool.acquire() as connection:
            await connection.execute(_EXPIRE_PARKED, self.name, retention)
            tag = await connection.execute(_EXPIRE, self.name, retention, limit)
        return int(tag.rpartition(" ")[2])


def _each(handlers: Mapping[type[Message], EventHandler]) -> Batches:
    by_name = {str(message.DESCRIPTOR.full_name): handler for message, handler in handlers.items()}
    return Batches(tuple(handlers), one_by_one(by_name))
