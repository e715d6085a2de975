"""One partition as its owner reads it: each event has its effect once, in the order of its key.

Position, inbox, effects and the events that follow from them are one transaction, which compares the fence first. So
it does not matter where a process dies, or how often the log has an event. Made by the consumer for each claim.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast
from uuid import UUID

from amends_barrier import BROKEN, conflict, database_away
from amends_barrier.transaction import Connection, Pool
from google.protobuf.message import DecodeError, Message

from amends_events.backoff import BACKOFF, now_of_loop
from amends_events.broker import Broker, BrokerError, LogEntry, PositionLostError
from amends_events.envelope import CloudEvent, EnvelopeError, event_from, handling
from amends_events.leases import Claim
from amends_events.meter import Meter, Result
from amends_events.parked import ParkedDecision, ParkedReason, Parking, key_of
from amends_events.positions import another_event, is_event, read_after, topic_ends
from amends_events.topics import EventType

EventHandler = Callable[[Any, CloudEvent, Any], Awaitable[None]]
"""Takes the connection of the transaction, the event, and its message. It may not end the transaction, nor begin one
in it; whatever has to happen outside of the database is written down and done later. A refusal of the domain is no
error: the handler writes the event that says so. What it raises is tried again, then the event is parked."""

BatchHandler = Callable[[Any, Sequence[tuple[CloudEvent, Any]]], Awaitable[None]]
"""Takes the connection of the transaction, and all events of a batch that are to be handled with their messages, in
their order. Otherwise it is as an `EventHandler`."""

BATCH = 100
ATTEMPTS = 5
"""So often an event is handled before it is parked."""
WAIT = timedelta(seconds=1)
LOOK_EVERY = timedelta(seconds=1)
"""How often decisions about parked events are looked for."""
MAX_BLOCKED_KEYS = 1000
"""A partition with so many parked keys stands still: something is wrong with all of it."""
ACQUIRE_TIMEOUT = timedelta(seconds=5)

_log = logging.getLogger(__name__)

_ADVANCE = """
WITH mine AS (
    UPDATE inbox_position SET position = $4, event_id = $5, event_at = $6
    WHERE consumer = $1 AND topic = $2 AND partition = $3 AND fence = $7 RETURNING 1
), fresh AS (
    INSERT INTO inbox (consumer, event_id) SELECT $1, event_id FROM unnest($8::uuid[]) AS event_id, mine
    ON CONFLICT DO NOTHING RETURNING event_id
)
SELECT EXISTS (SELECT FROM mine) AS mine, ARRAY(SELECT event_id FROM fresh) AS fresh
"""
_MINE = """
SELECT true FROM inbox_position WHERE consumer = $1 AND topic = $2 AND partition = $3 AND fence = $4 FOR NO KEY UPDATE
"""


class TransientError(Exception):
    """What a handler raises when the event can be handled later: it is waited for, however long, in its place."""


class FenceLostError(Exception):
    """Another process has this partition now; nothing was committed."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the partitions of one consumer share."""

    consumer: str
    pool: Pool
    broker: Broker
    types: Mapping[str, EventType]
    """What the consumer handles, by the full name of the event's message."""
    handle: BatchHandler
    remembers: bool
    """Whether the inbox drops events that were handled before."""
    meter: Meter
    slots: asyncio.Semaphore
    """Bounds how many connections of the pool the consumer holds at once."""
    lease: timedelta
    batch: int
    """How many events one transaction handles at most."""
    transient: Callable[[BaseException], bool]


@dataclass(frozen=True, slots=True)
class _Item:
    """A record, read as far as it can be."""

    stored: LogEntry
    event: CloudEvent | None
    message: Message | None
    wanted: bool
    """False for a type that the consumer does not handle."""
    undecodable: str
    """Why it cannot be read; empty when it can."""


class Partition:
    """A partition that this process has claimed."""

    def __init__(self, reading: Reading, claim: Claim) -> None:
        self.claim = claim
        self.position = claim.position
        """The last position that was committed."""
        self.lost = False
        """Whether the log does not go on at the position, so that a person has to look."""
        self._reading = reading
        self._event_id = claim.event_id
        self._parking = Parking(reading.consumer, claim.topic, claim.partition)
        self._place = (reading.consumer, claim.topic, claim.partition)
        self._looked_at = float("-inf")
        self._unsure = False
        """Whether a transaction may have been committed without its answer: then the database knows what is parked."""

    @property
    def blocked(self) -> frozenset[str]:
        """Return the keys that wait behind a parked event."""
        return frozenset(self._parking.blocked)

    async def run(self) -> None:
        """Read and handle for ever. Raises FenceLostError; waits for whatever else goes away and comes back."""
        await self._until_possible(self._load)
        failures = 0
        while True:
            try:
                async with aclosing(self._batches()) as batches:
                    async for batch in batches:
                        failures = 0
                        await self._turn(batch)
            except PositionLostError as error:
                self._say_lost(True, error)
                await asyncio.sleep(BACKOFF.maximum.total_seconds())
            except BrokerError as error:
                failures += 1
                _log.warning("consumer.broker_away", extra=self._told(error))
                await _pause(failures)

    async def _load(self) -> None:
        async with self._connection() as connection:
            await self._parking.load(connection)
        self._tell_blocked()

    async def _batches(self) -> AsyncGenerator[list[LogEntry], None]:
        """Read on after the position. Raises PositionLostError when the log has another event there, or is shorter."""
        broker, (_, topic, partition) = self._reading.broker, self._place
        ends = (await topic_ends(broker, topic, self.position)).get(partition)
        after, known = read_after(topic, partition, self.position, ends), self._event_id
        check = known is not None and ends is not None and ends.first <= after
        async with aclosing(
            broker.read(topic, partition, after - check, limit=self._reading.batch, wait=WAIT)
        ) as batches:
            async for batch in batches:
                if check and batch:
                    check = False
                    if known is not None and not is_event(batch[0].record, known):
                        raise another_event(topic, partition, after)
                    batch = batch[1:]
                self._say_lost(False, None)
                yield batch

    async def _turn(self, batch: list[LogEntry]) -> None:
        await self._release_decided()
        while len(self._parking.blocked) >= MAX_BLOCKED_KEYS:
            _log.error("consumer.too_many_parked", extra=self._told(None))
            await asyncio.sleep(LOOK_EVERY.total_seconds())
            await self._release_decided()
        for first in range(0, len(batch), self._reading.batch):
            await self._take(batch[first : first + self._reading.batch])

    async def _take(self, batch: list[LogEntry]) -> None:
        """Handle a batch in one transaction; when that fails, each event in one of its own."""
        try:
            await self._handle(batch)
            return
        except FenceLostError:
            raise
        except Exception as error:
            _log.info("consumer.one_by_one", extra=self._told(error))
        for stored in batch:
            await self._take_one(stored)

    async def _take_one(self, stored: LogEntry) -> None:
        attempts = waits = 0
        while True:
            try:
                await self._handle([stored])
                return
            except FenceLostError:
                raise
            except Exception as error:
                if self._reading.transient(error):
                    waits += 1
                    _log.warning("consumer.waits", extra=self._told(error) | {"position": stored.position})
                    await _pause(waits)
                    continue
                attempts += 1
                if attempts >= ATTEMPTS:
                    await self._until_possible(partial(self._park, stored, error, attempts))
                    return
                await _pause(attempts)

    async def _handle(self, batch: Sequence[LogEntry]) -> None:
        """Handle a batch in one transaction. Raises FenceLostError, and what a handler raises."""
        began = now_of_loop()
        items = [self._read(stored) for stored in batch]
        results: list[tuple[str, Result]] = []
        parked: list[tuple[LogEntry, ParkedReason, str, int]] = []
        taken: list[tuple[CloudEvent, Message]] = []
        async with self._transaction() as connection:
            fresh = await self._advance(connection, items)
            blocked = set(self._parking.blocked)
            for item in items:
                kind = _kind(item)
                if item.event is not None and not item.wanted:
                    results.append((kind, Result.SKIPPED))
                elif item.event is not None and not self._is_new(fresh, item.event.event_id):
                    results.append((kind, Result.DUPLICATE))
                elif (reason := self._parks(item, blocked)) is not None:
                    blocked.add(key_of(self._place[1], item.stored))
                    parked.append((item.stored, reason, item.undecodable, 0))
                    results.append((kind, Result.PARKED))
                else:
                    taken.append(_readable(item))
                    results.append((kind, Result.HANDLED))
            if taken:
                await self._reading.handle(connection, taken)
            if parked:
                await self._parking.park(connection, parked)
        self._committed(items[-1], blocked)
        self._tell(began, items[-1], results)

    def _is_new(self, fresh: set[UUID], event_id: UUID) -> bool:
        """Return whether an event is still to be handled, and take it: a batch may have it twice."""
        if event_id not in fresh:
            return False
        if self._reading.remembers:
            fresh.remove(event_id)
        return True

    def _parks(self, item: _Item, blocked: set[str]) -> ParkedReason | None:
        if item.event is not None and blocked and key_of(self._place[1], item.stored) in blocked:
            return ParkedReason.AFTER
        return ParkedReason.UNDECODABLE if item.undecodable else None

    async def _park(self, stored: LogEntry, error: BaseException, attempts: int) -> None:
        item = self._read(stored)
        assert item.event is not None
        async with self._transaction() as connection:
            fresh = await self._advance(connection, [item])
            blocked = set(self._parking.blocked)
            if item.event.event_id in fresh:
                detail = f"{type(error).__name__}: {error}"
                await self._parking.park(connection, [(stored, ParkedReason.FAILED, detail, attempts)])
                blocked.add(key_of(self._place[1], stored))
        self._committed(item, blocked)
        self._reading.meter.handled(self._place[0], item.event.type, Result.PARKED)
        _log.error("consumer.parked", extra=self._told(error) | {"position": stored.position, "type": item.event.type})

    async def _advance(self, connection: Connection, items: Sequence[_Item]) -> set[UUID]:
        """Move the position to the last item; return the ids that were not handled before. Raises FenceLostError."""
        last = items[-1]
        ids = [item.event.event_id for item in items if item.event is not None and item.wanted]
        event_id, at = (None, None) if last.event is None else (last.event.event_id, last.event.occurred_at)
        row = await connection.fetchrow(
            _ADVANCE,
            *self._place,
            last.stored.position,
            event_id,
            at,
            self.claim.fence,
            ids if self._reading.remembers else [],
        )
        assert row is not None
        if not row["mine"]:
            raise FenceLostError
        if self._unsure:  # the row of the position is locked, so whatever was under way has ended
            await self._parking.load(connection)
            self._unsure = False
        return set(row["fresh"] if self._reading.remembers else ids)

    def _committed(self, last: _Item, blocked: set[str]) -> None:
        self.position = last.stored.position
        self._event_id = None if last.event is None else last.event.event_id
        if blocked != self._parking.blocked:
            self._parking.blocked = blocked
            self._tell_blocked()

    def _read(self, stored: LogEntry) -> _Item:
        """Read a record as far as it can be read."""
        try:
            event = event_from(self._place[1], stored.record.attributes, stored.record.payload)
        except EnvelopeError as error:
            return _Item(stored, None, None, False, str(error))
        known = self._reading.types.get(event.type)
        if known is None:
            return _Item(stored, event, None, False, "")
        try:
            return _Item(stored, event, known.message.FromString(event.payload), True, "")
        except DecodeError as error:
            return _Item(stored, event, None, True, f"its bytes are no {event.type}: {error}")

    async def _release_decided(self) -> None:
        """Let go on what a person has decided about, and everything of its key behind it."""
        now = now_of_loop()
        if not self._parking.blocked or now - self._looked_at < LOOK_EVERY.total_seconds():
            return
        self._looked_at = now
        try:
            async with self._connection() as connection:
                await self._parking.load(connection)
                keys = await self._parking.decided(connection)
            for key in keys:
                while await self._release_first(key):
                    pass
        except FenceLostError:
            raise
        except Exception as error:
            if not self._reading.transient(error):
                raise
            _log.warning("consumer.waits", extra=self._told(error))
        self._tell_blocked()

    async def _release_first(self, key: str) -> bool:
        """Handle, or leave out, the first parked event of a key; return whether the next one may follow."""
        position, item = 0, None
        try:
            async with self._transaction() as connection:
                if not await connection.fetchval(_MINE, *self._place, self.claim.fence):
                    raise FenceLostError
                first = await self._parking.first(connection, key)
                if first is None:
                    self._parking.blocked.discard(key)
                    return False
                if first.decision is None and first.reason is not ParkedReason.AFTER:
                    return False
                position, item = first.stored.position, self._read(first.stored)
                if first.decision is not ParkedDecision.SKIP:
                    if item.undecodable:
                        raise DecodeError(item.undecodable)
                    if item.wanted:
                        await self._reading.handle(connection, [_readable(item)])
                await self._parking.release(connection, position, first.decision is not ParkedDecision.SKIP)
        except Exception as error:
            if item is None or isinstance(error, FenceLostError) or self._reading.transient(error):
                raise
            reason = ParkedReason.UNDECODABLE if item.undecodable else ParkedReason.FAILED
            async with self._transaction() as connection:
                await self._parking.park_again(connection, position, reason, f"{type(error).__name__}: {error}", 1)
            _log.error("consumer.parked_again", extra=self._told(error) | {"position": position})
            return False
        kind = _kind(item)
        skipped = first.decision is ParkedDecision.SKIP
        self._reading.meter.handled(self._place[0], kind, Result.SKIPPED if skipped else Result.HANDLED)
        _log.info("consumer.released", extra=self._told(None) | {"position": position, "skipped": skipped})
        return True

    async def _until_possible(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do something of our own as soon as the database is there."""
        failures = 0
        while True:
            try:
                return await work()
            except Exception as error:
                if not self._reading.transient(error):
                    raise
                failures += 1
                _log.warning("consumer.waits", extra=self._told(error))
                await _pause(failures)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        """Give a connection in a transaction, which the server ends when this process stands still for a lease."""
        milliseconds = round(self._reading.lease / timedelta(milliseconds=1))
        async with self._connection() as connection:
            try:
                await connection.execute(f"BEGIN; SET LOCAL idle_in_transaction_session_timeout = {milliseconds}")
                yield connection
            except BaseException:
                if not connection.is_closed():
                    await _rolled_back(connection)
                raise
            try:
                tag = await connection.execute("COMMIT")
            except BaseException:
                self._unsure = True
                raise
            if tag != "COMMIT":
                raise RuntimeError("a handler went on after an error that had broken the transaction")

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """Give a connection, no more at once to this consumer than its share of the pool."""
        async with self._reading.slots, self._reading.pool.acquire(timeout=ACQUIRE_TIMEOUT.total_seconds()) as held:
            yield cast("Connection", held)

    def _tell(self, began: float, last: _Item, results: Sequence[tuple[str, Result]]) -> None:
        meter, (consumer, topic, _) = self._reading.meter, self._place
        for (kind, result), events in Counter(results).items():
            meter.handled(consumer, kind, result, events)
        if last.event is not None:
            took = timedelta(seconds=now_of_loop() - began)
            meter.took(consumer, topic, took, datetime.now(UTC) - last.event.occurred_at)

    def _tell_blocked(self) -> None:
        self._reading.meter.keys_blocked(*self._place, len(self._parking.blocked))

    def _say_lost(self, lost: bool, error: BaseException | None) -> None:
        if lost != self.lost:
            self.lost = lost
            self._reading.meter.position_lost(*self._place, lost)
            if lost:
                _log.error("consumer.position_lost", extra=self._told(error) | {"position": self.position})

    def _told(self, error: BaseException | None) -> dict[str, Any]:
        consumer, topic, partition = self._place
        told: dict[str, Any] = {"consumer": consumer, "topic": topic, "partition": partition}
        return told if error is None else told | {"error": f"{type(error).__name__}: {error}"}


def one_by_one(handlers: Mapping[str, EventHandler]) -> BatchHandler:
    """Return what handles a batch by calling the handler of each event's type, by its full name, in their order."""

    async def handle(connection: Any, events: Sequence[tuple[CloudEvent, Any]]) -> None:
        for event, message in events:
            with handling(event):
                await handlers[event.type](connection, event, message)

    return handle


def is_transient(error: BaseException) -> bool:
    """Return whether an error goes away by itself: of the database, of a connection, or because a handler says so."""
    if isinstance(error, TransientError | OSError | TimeoutError):
        return True
    return database_away(error) or conflict(error)


def _kind(item: _Item) -> str:
    """Return the type under which an item is counted: empty for what is no event, or of a type made up by anybody."""
    return item.event.type if item.event is not None and item.wanted else ""


def _readable(item: _Item) -> tuple[CloudEvent, Message]:
    assert item.event is not None
    assert item.message is not None
    return item.event, item.message


async def _pause(failures: int) -> None:
    await asyncio.sleep(BACKOFF.pause(failures).total_seconds())


async def _rolled_back(connection: Connection) -> None:
    try:
        await connection.execute("ROLLBACK")
    except BROKEN:
        connection.terminate()
