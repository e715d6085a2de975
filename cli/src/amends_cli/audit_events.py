"""Reads the databases and the broker of a running installation for `amends audit`, and has every event checked.

The databases are read first, each in one snapshot that is kept open, the log afterwards: it only grows, so events that
are published meanwhile are no contradictions. Nothing is written, and no service is asked.
"""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

from amends_events import Broker, BrokerError, CloudEvent, Ends, LogEntry, NoTopicError, open_broker
from amends_events.consumer import INBOX_RETENTION
from amends_events.envelope import EnvelopeError, event_from
from amends_events.laws import EventLaw
from amends_events.parked import ParkedDecision

from amends_cli.audit_databases import UnreadableError, connected
from amends_cli.audit_exports import Exports, Untold, read_exports

LogPartition: TypeAlias = tuple[str, int]
"""A topic and a partition."""
PAGE = 1000
SHOWN = 20
"""So many findings of one law and consumer are named, and then counted."""
NEVER = datetime.max.replace(tzinfo=UTC)

_TABLES = """
SELECT to_regclass('outbox') IS NOT NULL AS has_outbox, to_regclass('outbox_sent') IS NOT NULL AS has_sent,
    to_regclass('inbox') IS NOT NULL AS has_inbox
"""
_OUTBOX = "SELECT topic, count(*) AS events, now() - min(occurred_at) AS oldest FROM outbox GROUP BY topic"
_TOLD = "SELECT type, key, version FROM outbox"
_SENT = "SELECT event_id, key, version, occurred_at FROM outbox_sent WHERE topic = $1 AND partition = $2"
_SENT_ANY = "SELECT EXISTS (SELECT FROM outbox_sent)"
_HAS_READ = "SELECT EXISTS (SELECT FROM inbox_position WHERE consumer = $1 AND position > 0)"
_SENT_PARTITIONS = "SELECT DISTINCT partition FROM outbox_sent WHERE topic = $1"
_SENT_TOPICS = "SELECT DISTINCT topic FROM outbox_sent"
_POSITIONS = "SELECT consumer, topic, partition, position, event_id FROM inbox_position"
_HANDLED = "SELECT event_id, at FROM inbox WHERE consumer = $1 AND event_id = ANY($2::uuid[])"
_KNOWN = "SELECT count(*) FROM inbox WHERE consumer = $1"
_PARKED = """
SELECT event_id, key, reason, decision, released_at FROM inbox_parked
WHERE consumer = $1 AND topic = $2 AND partition = $3
"""


@dataclass(frozen=True, slots=True)
class EventFinding:
    """A law that does not hold, and where."""

    law: EventLaw
    message: str
    topic: str = ""
    key: str = ""
    consumer: str = ""


@dataclass(frozen=True, slots=True)
class WaitingEvents:
    """Events in an outbox, and the age of the oldest."""

    events: int
    oldest: timedelta


@dataclass(slots=True)
class EventReport:
    """The result of an audit of events: what was counted, what is wrong, and what cannot be known."""

    events: int = 0
    """Different events in the log."""
    topics: int = 0
    consumers: int = 0
    compared: int = 0
    """Changes that services keep, each of which has its event in the log or in the outbox, or is named."""
    handled: int = 0
    """Effects: an event that two consumers have handled counts twice."""
    waiting: dict[str, WaitingEvents] = field(default_factory=dict)
    """What is in the outbox, by database."""
    parked: Counter[str] = field(default_factory=Counter)
    """Events that wait for a person or behind one that does, by consumer."""
    left_out: int = 0
    """Events that a person had a consumer leave out."""
    lag: Counter[str] = field(default_factory=Counter)
    """Events that are still to be read, by consumer."""
    unknown: list[str] = field(default_factory=list)
    """What cannot be known, each a sentence."""
    found: list[EventFinding] = field(default_factory=list)
    more: Counter[str] = field(default_factory=Counter)
    """Findings that are counted and not named, by law."""

    def add(self, finding: EventFinding) -> None:
        """Note a finding; of one law and consumer no more than SHOWN."""
        same = sum((one.law, one.consumer) == (finding.law, finding.consumer) for one in self.found)
        if same < SHOWN:
            self.found.append(finding)
        else:
            self.more[finding.law.value] += 1


@dataclass(slots=True)
class _Database:
    """The snapshot of one database, and what it has of events."""

    name: str
    connection: Any
    has_outbox: bool
    has_sent: bool
    has_inbox: bool


@dataclass(slots=True)
class _PartitionReader:
    """One consumer in one partition: where it is, and what was seen of it so far."""

    database: _Database
    consumer: str
    position: int
    event_id: UUID | None
    parked: dict[UUID, Any] = field(default_factory=dict)
    types: set[str] = field(default_factory=set)
    """The types of which it has handled an event."""
    last: dict[str, datetime] = field(default_factory=dict)
    """When the last event of a key was handled; NEVER for one that waits."""


async def audit_events(
    databases: Mapping[str, str],
    broker_url: str,
    exports: Exports | None = None,
    retention: timedelta = INBOX_RETENTION,
) -> EventReport:
    """Check the events of all databases, by name, against the log and what services keep. Raises UnreadableError.

    Without a broker only what waits and what is parked is told. `retention` is that of the inboxes.
    """
    report = EventReport()
    changes, silent = await read_exports(exports) if exports is not None and broker_url else ([], [])
    untold = Untold(changes)
    report.unknown += silent
    async with AsyncExitStack() as stack:
        snapshots = [await stack.enter_async_context(_snapshot(name, url)) for name, url in databases.items()]
        snapshots = [one for one in snapshots if one.has_outbox or one.has_inbox]
        if not snapshots:
            return report
        waiting = await _waiting(snapshots, report, untold)
        readers = await _readers(snapshots, report)
        report.consumers = len({reader.consumer for of in readers.values() for reader in of})
        if not broker_url:
            report.unknown.append("the log was not read: give --broker")
            return report
        broker = open_broker(broker_url)
        try:
            await _EventAuditor(report, snapshots, broker, untold, retention).audit(readers, waiting)
        except BrokerError as error:
            raise UnreadableError(f"the broker cannot be read: {error}") from None
        finally:
            await broker.close()
    return report


@asynccontextmanager
async def _snapshot(name: str, url: str) -> AsyncIterator[_Database]:
    async with (
        connected(name, url) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        there = await connection.fetchrow(_TABLES)
        assert there is not None
        yield _Database(name, connection, **there)


async def _waiting(databases: Sequence[_Database], report: EventReport, untold: Untold) -> set[str]:
    """Return the topics of which something is in an outbox, or was and is remembered."""
    found: set[str] = set()
    for database in databases:
        for row in await database.connection.fetch(_OUTBOX) if database.has_outbox else []:
            found.add(row["topic"])
            waiting = report.waiting.get(database.name, WaitingEvents(0, timedelta()))
            report.waiting[database.name] = WaitingEvents(
                waiting.events + row["events"], max(waiting.oldest, row["oldest"])
            )
        for row in await database.connection.fetch(_TOLD) if database.has_outbox and untold.compared else []:
            untold.told(row["type"], row["key"], row["version"])
        if database.has_sent:
            found |= {row["topic"] for row in await database.connection.fetch(_SENT_TOPICS)}
    return found


async def _readers(databases: Sequence[_Database], report: EventReport) -> dict[LogPartition, list[_PartitionReader]]:
    """Return who reads which partition, with what is parked of it."""
    found: dict[LogPartition, list[_PartitionReader]] = defaultdict(list)
    for database in databases:
        for row in await database.connection.fetch(_POSITIONS) if database.has_inbox else []:
            place = row["topic"], row["partition"]
            reader = _PartitionReader(database, row["consumer"], row["position"], row["event_id"])
            for one in await database.connection.fetch(_PARKED, row["consumer"], *place):
                report.parked[reader.consumer] += one["released_at"] is None
                report.left_out += one["released_at"] is not None and one["decision"] == ParkedDecision.SKIP
                if one["event_id"] is not None:
                    reader.parked[one["event_id"]] = one
            found[place].append(reader)
    return found


class _EventAuditor:
    """The state of one audit over the log."""

    def __init__(
        self,
        report: EventReport,
        databases: Sequence[_Database],
        broker: Broker,
        untold: Untold,
        retention: timedelta,
    ) -> None:
        self._report = report
        self._untold = untold
        self._databases = databases
        self._broker = broker
        self._remembered_since = datetime.now(UTC) - retention
        self._forgetful: set[str] = set()
        """Topics whose log does not begin at its beginning any more."""
        self._matched: Counter[tuple[str, str]] = Counter()
        """Events of an inbox that the log has, by database and consumer."""
        self._read_by: dict[tuple[str, str], set[str]] = defaultdict(set)
        """The topics of a consumer, by database and consumer."""

    async def audit(self, readers: Mapping[LogPartition, Sequence[_PartitionReader]], published: set[str]) -> None:
        """Check every partition of the topics that somebody reads or has published to."""
        topics = published | {topic for topic, _ in readers} | self._untold.topics
        self._report.topics = len(topics)
        for topic in sorted(topics):
            for partition, ends in sorted((await self._ends(topic, readers)).items()):
                await self._partition((topic, partition), ends, readers.get((topic, partition), ()))
            for change in self._untold.left(topic):
                what = f"{change.address} keeps version {change.version} ({change.type}), and no event tells of it"
                self._report.add(EventFinding(EventLaw.PUBLISHED, what, topic, change.key))
        self._report.compared = self._untold.compared
        if not self._untold.compared:
            self._report.unknown.append(
                "whether each change that services keep has its event: no service exports what it keeps (--export)"
            )
        await self._inboxes()
        if self._forgetful:
            names = ", ".join(sorted(self._forgetful))
            self._report.unknown.append(f"the log has forgotten the beginning of {names}: what was there is not known")
        if not any(
            [await database.connection.fetchval(_SENT_ANY) for database in self._databases if database.has_sent]
        ):
            self._report.unknown.append(
                "no service keeps what it has published (AMENDS_OUTBOX_KEEP): an event that the broker acknowledged "
                "and lost is seen only where a consumer has handled it"
            )

    async def _ends(self, topic: str, readers: Mapping[LogPartition, Sequence[_PartitionReader]]) -> Mapping[int, Ends]:
        """Return the ends of a topic; one that is not there is empty, wherever somebody was in it."""
        try:
            return await self._broker.ends(topic)
        except NoTopicError as error:
            self._report.unknown.append(str(error))
            partitions = {partition for name, partition in readers if name == topic}
            for database in self._databases:
                if database.has_sent:
                    partitions |= {row["partition"] for row in await database.connection.fetch(_SENT_PARTITIONS, topic)}
            return {partition: Ends(first=1, last=0) for partition in partitions}

    async def _partition(self, place: LogPartition, ends: Ends, readers: Sequence[_PartitionReader]) -> None:
        if ends.first > 1:
            self._forgetful.add(place[0])
        for reader in readers:
            self._read_by[reader.database.name, reader.consumer].add(place[0])
            self._report.lag[reader.consumer] += max(0, ends.last - max(reader.position, ends.first - 1))
            self._look_where(reader, place, ends)
        seen: set[UUID] = set()
        versions: dict[str, int] = {}
        began: datetime | None = None
        async for entries in self._log(place, ends):
            fresh: list[tuple[LogEntry, CloudEvent]] = []
            for entry, event in entries:
                self._look_at(readers, entry, event, place)
                if event is None or event.event_id in seen:
                    continue
                seen.add(event.event_id)
                self._untold.told(event.type, event.key, event.version)
                began = began or event.occurred_at
                fresh.append((entry, event))
                if event.version < versions.get(event.key, event.version):
                    what = f"version {event.version} comes after version {versions[event.key]}"
                    self._report.add(EventFinding(EventLaw.ORDER, what, place[0], event.key))
                versions[event.key] = event.version
            for reader in readers:
                await self._consumed(reader, place, fresh)
        self._report.events += len(seen)
        if ends.first > 1:
            self._untold.forgotten(place[0], began or datetime.now(UTC))
        await self._sent(place, seen, ends.first == 1, began)

    async def _log(self, place: LogPartition, ends: Ends) -> AsyncIterator[list[tuple[LogEntry, CloudEvent | None]]]:
        """Yield what the log has up to its present end."""
        if ends.last < ends.first:
            return
        async with aclosing(self._broker.read(*place, ends.first - 1, limit=PAGE)) as batches:
            async for batch in batches:
                yield [(entry, _event(place[0], entry)) for entry in batch if entry.position <= ends.last]
                if batch and batch[-1].position >= ends.last:
                    return

    def _look_where(self, reader: _PartitionReader, place: LogPartition, ends: Ends) -> None:
        """See whether the log goes on where a consumer is."""
        if reader.position > ends.last or 0 < reader.position < ends.first - 1:
            what = f"partition {place[1]} was read up to {reader.position}, and the log has {ends.first} to {ends.last}"
            self._report.add(EventFinding(EventLaw.POSITION, what, place[0], "", reader.consumer))

    def _look_at(
        self, readers: Sequence[_PartitionReader], entry: LogEntry, event: CloudEvent | None, place: LogPartition
    ) -> None:
        """See whether the log has, where a consumer is, the event that it has read there."""
        for reader in readers:
            known = reader.event_id
            if entry.position == reader.position and known is not None and (event is None or event.event_id != known):
                what = f"partition {place[1]} has another event at {entry.position} than was read there: {known}"
                self._report.add(EventFinding(EventLaw.POSITION, what, place[0], "", reader.consumer))

    async def _consumed(
        self, reader: _PartitionReader, place: LogPartition, events: Sequence[tuple[LogEntry, CloudEvent]]
    ) -> None:
        """See whether a consumer has handled events that it has read, once, in the order of their keys."""
        read = [event for entry, event in events if entry.position <= reader.position]
        ids = [event.event_id for _, event in events]
        rows = await reader.database.connection.fetch(_HANDLED, reader.consumer, ids)
        handled = {row["event_id"]: row["at"] for row in rows}
        self._matched[reader.database.name, reader.consumer] += len(handled)
        for event in read:
            at = handled.get(event.event_id)
            if at is None:
                if event.type in reader.types and event.occurred_at > self._remembered_since:
                    what = f"{event.type} {event.event_id} was passed by and not handled"
                    self._report.add(EventFinding(EventLaw.ONE_EFFECT, what, place[0], event.key, reader.consumer))
                continue
            reader.types.add(event.type)
            self._in_order(reader, place, event, at)

    def _in_order(self, reader: _PartitionReader, place: LogPartition, event: CloudEvent, at: datetime) -> None:
        parked = reader.parked.get(event.event_id)
        if parked is not None:
            if parked["released_at"] is not None and parked["decision"] == ParkedDecision.SKIP:
                return
            at = parked["released_at"] or NEVER
        if at < NEVER:
            self._report.handled += 1
        if at < reader.last.get(event.key, at):
            what = f"version {event.version} was handled before what comes before it"
            self._report.add(EventFinding(EventLaw.EFFECTS_IN_ORDER, what, place[0], event.key, reader.consumer))
        reader.last[event.key] = at

    async def _sent(self, place: LogPartition, seen: set[UUID], whole: bool, began: datetime | None) -> None:
        """See whether the log has what services remember to have published."""
        for database in self._databases:
            if not database.has_sent:
                continue
            async for row in database.connection.cursor(_SENT, *place):
                kept = whole or (began is not None and row["occurred_at"] > began)
                if kept and row["event_id"] not in seen:
                    what = f"{database.name} has published version {row['version']}, and the log does not have it"
                    self._report.add(EventFinding(EventLaw.PUBLISHED, what, place[0], row["key"]))

    async def _inboxes(self) -> None:
        """See whether inboxes have events that no log has."""
        names = {database.name: database for database in self._databases}
        for (name, consumer), topics in sorted(self._read_by.items()):
            known = await names[name].connection.fetchval(_KNOWN, consumer)
            matched = self._matched[name, consumer]
            if not known and await names[name].connection.fetchval(_HAS_READ, consumer):
                self._report.unknown.append(
                    f"{consumer} knows by itself what it has handled and keeps no inbox: its effects were not compared"
                )
            elif known > matched and not topics & self._forgetful:
                what = f"it has handled {known - matched} events that the log does not have"
                self._report.add(EventFinding(EventLaw.PUBLISHED, what, ", ".join(sorted(topics)), "", consumer))


def _event(topic: str, entry: LogEntry) -> CloudEvent | None:
    try:
        return event_from(topic, entry.record.attributes, b"")
    except EnvelopeError:
        return None
