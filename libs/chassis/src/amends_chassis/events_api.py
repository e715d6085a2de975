"""amends.events.v1.EventsService: what a service publishes and consumes, for who is on call.

Served by `service.Runtime` in every service that has events. Its tables and rules are those of `amends_events`; here
requests are read, and answers written.
"""

from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from typing import Any, TypeVar
from uuid import UUID

from amends_events import AppendRefusedError, Broker, BrokerError, Topic
from amends_events.backlog import (
    WaitingEvent,
    count_sent,
    count_waiting,
    list_waiting,
    republish,
    skip_waiting,
)
from amends_events.decisions import DecidedBy, DecisionError, list_decisions
from amends_events.lag import PartitionLag, list_lag
from amends_events.parked import (
    LARGEST,
    ParkedDecision,
    ParkedEvent,
    ParkedFilter,
    ParkedPlace,
    count_behind,
    decide,
    get_parked,
    list_parked,
)
from amends_events.replay import ReplayMove, ReplayStart, ids_to_forget, plan_replay, replay
from amends_events.structured import structured
from amends_events.topics import MAX_PARTITIONS
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from amends.events.v1 import events_service_pb2 as pb
from amends.events.v1.events_service_pb2_grpc import EventsServiceServicer
from amends_chassis.access import identity
from amends_chassis.errors import DomainError, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from amends_chassis.events import ServiceEvents
from amends_chassis.types import Context

SERVICE = "amends.events.v1.EventsService"
PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000
MAX_TEXT = 2000
T = TypeVar("T")

_KINDS = {pb.PARKED_DECISION_RETRY: ParkedDecision.RETRY, pb.PARKED_DECISION_SKIP: ParkedDecision.SKIP}
_NOT_FOUND = {"PARKED_UNKNOWN", "CONSUMER_UNKNOWN", "TOPIC_UNKNOWN", "OUTBOX_EVENT_UNKNOWN"}


def _in_bounds(serve: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., Coroutine[Any, Any, T]]:
    """Serve only requests whose texts a database can take."""

    @wraps(serve)
    async def served(self: "EventsServicer", request: Message, context: Context) -> T:
        for field, value in request.ListFields():
            if isinstance(value, str) and (len(value) > MAX_TEXT or "\0" in value):
                raise InvalidArgument("TEXT_INVALID", f"{field.name} has up to {MAX_TEXT} characters, and no NUL.")
        return await serve(self, request, context)

    return served


class EventsServicer(EventsServiceServicer):
    """Answers who is on call, and takes their decisions."""

    def __init__(self, events: ServiceEvents) -> None:
        self._events = events

    @_in_bounds
    async def ListTopics(self, request: pb.ListTopicsRequest, context: Context) -> pb.ListTopicsResponse:
        """List what the contracts and the broker say of each topic."""
        found = []
        for topic in self._events.topics():
            status = pb.TopicStatus(
                name=topic.name,
                partitions=topic.partitions,
                published=self._events.published(topic.name),
                consumers=self._events.consumers_of(topic.name),
            )
            if status.published:
                status.waiting = await count_waiting(self._pool, topic.name)
            status.events, status.problem = await self._in_broker(topic)
            found.append(status)
        return pb.ListTopicsResponse(topics=found)

    @_in_bounds
    async def ListLag(self, request: pb.ListLagRequest, context: Context) -> pb.ListLagResponse:
        """List where consumers are in each partition."""
        if not await self._has("inbox_position"):
            return pb.ListLagResponse()
        with _told():
            found = await list_lag(self._pool, self._broker(), request.consumer, request.topic)
        return pb.ListLagResponse(partitions=map(_lag, found))

    @_in_bounds
    async def ListParked(self, request: pb.ListParkedRequest, context: Context) -> pb.ListParkedResponse:
        """List parked events, a page at a time."""
        if not await self._has("inbox_parked"):
            return pb.ListParkedResponse()
        size, after = _page(request, ParkedPlace.parse)
        which = ParkedFilter(request.consumer, request.topic, request.key, request.decidable)
        found = await list_parked(self._pool, which, size + 1, after)
        token = str(found[size - 1].place) if len(found) > size else ""
        return pb.ListParkedResponse(events=map(_parked, found[:size]), next_page_token=token)

    @_in_bounds
    async def GetParked(self, request: pb.GetParkedRequest, context: Context) -> pb.GetParkedResponse:
        """Read one parked event with its payload."""
        place = await self._place(request.name)
        found = await get_parked(self._pool, place)
        if found is None:
            raise NotFound("PARKED_UNKNOWN", f"No event is parked as {place}.")
        event, record = found
        behind = await count_behind(self._pool, event)
        shown = structured(record.attributes, record.payload)
        return pb.GetParkedResponse(parked=_parked(event), event=shown, behind=behind)

    @_in_bounds
    async def DecideParked(self, request: pb.DecideParkedRequest, context: Context) -> pb.DecideParkedResponse:
        """Have a parked event handled again, or left out."""
        decision = _KINDS.get(request.decision)
        if decision is None:
            raise InvalidArgument("DECISION_INVALID", "Say what to do: retry or skip.")
        place, by = await self._place(request.name), _by(request, context)
        with _told():
            async with self._pool.acquire() as connection:
                event = await decide(connection, place, decision, by)
        return pb.DecideParkedResponse(parked=_parked(event), behind=await count_behind(self._pool, event))

    @_in_bounds
    async def Replay(self, request: pb.ReplayRequest, context: Context) -> pb.ReplayResponse:
        """Move a consumer in the log, or say what that would do."""
        by = None if request.dry_run else _by(request, context)
        if request.WhichOneof("start") is None:
            raise InvalidArgument("DECISION_INVALID", "Say from where: a time or a position.")
        topic = await self._consumed(request.consumer, request.topic)
        remembers = self._force_allowed(request)
        since = _moment(request.since) if request.HasField("since") else request.position
        partition = request.partition if request.HasField("partition") else None
        if partition is not None and partition >= MAX_PARTITIONS:
            raise InvalidArgument("DECISION_INVALID", f"Partitions are 0 to {MAX_PARTITIONS - 1}.")
        with _told():
            broker = self._broker()
            start = ReplayStart(since, request.key or None, partition)
            moves = await plan_replay(self._pool, broker, request.consumer, topic, start)
            if by is not None:
                _accept_loss(moves, request.accept_loss)
                key = request.key or None
                forget = await ids_to_forget(broker, topic, moves, key) if request.force and remembers else []
                async with self._pool.acquire() as connection:
                    await replay(connection, request.consumer, topic, moves, by, forget)
        return pb.ReplayResponse(
            moves=map(_move, moves),
            events=sum(move.events for move in moves),
            lost=sum(move.lost for move in moves),
            done=by is not None,
        )

    @_in_bounds
    async def ListOutbox(self, request: pb.ListOutboxRequest, context: Context) -> pb.ListOutboxResponse:
        """List what waits in the outbox, a page at a time."""
        if not await self._has("outbox"):
            return pb.ListOutboxResponse()
        size, after = _page(request, _number)
        found = await list_waiting(self._pool, request.topic, size + 1, after or 0)
        return pb.ListOutboxResponse(
            events=map(_waiting, found[:size]),
            total=await count_waiting(self._pool, request.topic),
            next_page_token=str(found[size - 1].seq) if len(found) > size else "",
        )

    @_in_bounds
    async def SkipOutbox(self, request: pb.SkipOutboxRequest, context: Context) -> pb.SkipOutboxResponse:
        """Take an event out of the outbox that no broker will ever take."""
        by = _by(request, context)
        try:
            event_id = UUID(request.event_id)
        except ValueError:
            raise InvalidArgument("DECISION_INVALID", "An event is named by its id, a UUID.") from None
        with _told():
            async with self._pool.acquire() as connection:
                event = await skip_waiting(connection, self._events.source, event_id, by)
        return pb.SkipOutboxResponse(event=_waiting(event))

    @_in_bounds
    async def Republish(self, request: pb.RepublishRequest, context: Context) -> pb.RepublishResponse:
        """Publish again what was published before."""
        by = None if request.dry_run else _by(request, context)
        if not self._events.published(request.topic):
            raise NotFound("TOPIC_UNKNOWN", f"This service does not publish to {request.topic}.")
        asked = (request.topic, _moment(request.since), self._events.keep)
        with _told():
            async with self._pool.acquire() as connection:
                if by is None:
                    found = await count_sent(connection, *asked, request.key)
                else:
                    found = await republish(connection, *asked, by, request.key)
        self._events.wake()
        answer = pb.RepublishResponse(events=found.events, done=by is not None)
        _set(answer.first_at, found.first_at)
        _set(answer.last_at, found.last_at)
        return answer

    @_in_bounds
    async def ListDecisions(self, request: pb.ListDecisionsRequest, context: Context) -> pb.ListDecisionsResponse:
        """List the decisions that were made, newest first."""
        size, before = _page(request, _number)
        found = await list_decisions(self._pool, size + 1, before)
        shown = []
        for one in found[:size]:
            shown.append(
                pb.EventDecision(
                    decision=one.decision,
                    subject=one.subject,
                    actor=one.actor,
                    identity=one.identity,
                    reason=one.reason,
                    effect=one.effect,
                )
            )
            _set(shown[-1].decided_at, one.decided_at)
        token = str(found[size - 1].decision_id) if len(found) > size else ""
        return pb.ListDecisionsResponse(decisions=shown, next_page_token=token)

    @property
    def _pool(self) -> Any:
        return self._events.pool

    def _broker(self) -> Broker:
        if self._events.broker is None:
            raise Unavailable("BROKER_AWAY", "This service has no broker: AMENDS_BROKER is not set.")
        return self._events.broker

    async def _has(self, table: str) -> bool:
        """Return whether the service has a table: one that only publishes has no inbox."""
        return bool(await self._pool.fetchval("SELECT to_regclass($1) IS NOT NULL", table))

    async def _place(self, name: str) -> ParkedPlace:
        """Read the name of a parked event. Raises NotFound."""
        try:
            if await self._has("inbox_parked"):
                return ParkedPlace.parse(name)
        except ValueError:
            pass
        raise NotFound("PARKED_UNKNOWN", f"No event is parked as {name!r}.")

    async def _consumed(self, consumer: str, topic: str) -> Topic:
        """Return a topic that a consumer of this service reads. Raises NotFound."""
        query = "SELECT topic, count(*) AS partitions FROM inbox_position WHERE consumer = $1 GROUP BY topic"
        rows = await self._pool.fetch(query, consumer) if await self._has("inbox_position") else []
        found = {row["topic"]: row["partitions"] for row in rows}
        if not found:
            raise NotFound("CONSUMER_UNKNOWN", f"No consumer of this service is called {consumer!r}.")
        if topic not in found:
            raise NotFound("TOPIC_UNKNOWN", f"{consumer} does not consume {topic!r}, but {', '.join(sorted(found))}.")
        return Topic(topic, found[topic])

    def _force_allowed(self, request: pb.ReplayRequest) -> bool:
        """Return whether the inbox has to forget events, for them to be handled again. Raises FailedPrecondition."""
        consumed = self._events.consumed.get(request.consumer)
        if request.force and (consumed is None or not consumed.repeatable):
            raise FailedPrecondition(
                "NOT_REPEATABLE",
                f"{request.consumer} does not declare that its handlers may be repeated: they may have effects outside "
                "of the database, or have them twice in it.",
            )
        return consumed is not None and consumed.remembers

    async def _in_broker(self, topic: Topic) -> tuple[int, str]:
        """Return how many events the broker has of a topic, and what is wrong with it there."""
        broker = self._events.broker
        if broker is None:
            return 0, "the service has no broker: AMENDS_BROKER is not set"
        try:
            ends = await broker.ends(topic.name)
        except BrokerError as error:
            return 0, str(error)
        events = sum(one.last - one.first + 1 for one in ends.values())
        if len(ends) != topic.partitions:
            return events, f"it has {len(ends)} partitions and should have {topic.partitions}"
        return events, ""


@contextmanager
def _told() -> Iterator[None]:
    """Tell a caller what the library says of the block."""
    try:
        yield
    except DecisionError as error:
        kind: type[DomainError] = NotFound if error.reason in _NOT_FOUND else FailedPrecondition
        raise kind(error.reason, _sentence(error)) from error
    except AppendRefusedError as error:
        raise FailedPrecondition("TOPIC_MISSING", _sentence(error)) from error
    except BrokerError as error:
        raise Unavailable("BROKER_AWAY", _sentence(error)) from error


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."


def _by(request: Any, context: Context) -> DecidedBy:
    """Return who decides and why. Raises InvalidArgument."""
    try:
        return DecidedBy(request.actor, request.reason, identity(context))
    except ValueError as error:
        raise InvalidArgument("DECISION_INVALID", _sentence(error)) from error


def _page(request: Any, read: Callable[[str], T]) -> tuple[int, T | None]:
    """Return how many are asked for, and after which. Raises InvalidArgument."""
    size = min(request.page_size or PAGE_SIZE, MAX_PAGE_SIZE)
    if size < 1:
        raise InvalidArgument("PAGE_SIZE_INVALID", f"A page has 1 to {MAX_PAGE_SIZE} entries.")
    try:
        return size, read(request.page_token) if request.page_token else None
    except ValueError:
        raise InvalidArgument("PAGE_TOKEN_INVALID", "The page token is not from an answer of this method.") from None


def _number(token: str) -> int:
    """Read a page token that is the number of a row. Raises ValueError."""
    number = int(token)
    if not 0 <= number < LARGEST:
        raise ValueError(token)
    return number


def _accept_loss(moves: Sequence[ReplayMove], accepted: bool) -> None:
    """Raise FailedPrecondition when events are lost and nobody has said that this may be."""
    lost = sum(move.lost for move in moves)
    if lost and not accepted:
        raise FailedPrecondition(
            "LOSS_NOT_ACCEPTED", f"{lost} events were never read, and the log does not have them any more."
        )


def _moment(given: Timestamp) -> datetime:
    """Read a moment. Raises InvalidArgument."""
    try:
        return given.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise InvalidArgument("DECISION_INVALID", "The moment is none that a calendar has.") from None


def _set(field: Timestamp, value: datetime | None) -> None:
    if value is not None:
        field.FromDatetime(value)


def _lag(one: PartitionLag) -> pb.PartitionLag:
    found = pb.PartitionLag(
        consumer=one.consumer,
        topic=one.topic,
        partition=one.partition,
        position=one.position,
        first=one.ends.first,
        last=one.ends.last,
        lag=one.lag,
        state=pb.ReadingState.Value(f"READING_STATE_{one.state.name}"),
        owner=one.owner or "",
        blocked_keys=one.blocked_keys,
        problem=one.problem,
    )
    _set(found.event_at, one.event_at)
    return found


def _parked(event: ParkedEvent) -> pb.ParkedEvent:
    found = pb.ParkedEvent(
        name=str(event.place),
        consumer=event.consumer,
        topic=event.topic,
        partition=event.partition,
        position=event.position,
        event_id="" if event.event_id is None else str(event.event_id),
        key=event.key,
        type=event.type,
        reason=pb.ParkedReason.Value(f"PARKED_REASON_{event.reason.name}"),
        detail=event.detail,
        attempts=event.attempts,
        decided_by=event.decided_by or "",
        decided_because=event.decided_because or "",
    )
    if event.decision is not None:
        found.decision = pb.ParkedDecision.Value(f"PARKED_DECISION_{event.decision.name}")
    _set(found.parked_at, event.parked_at)
    _set(found.released_at, event.released_at)
    return found


def _move(move: ReplayMove) -> pb.ReplayMove:
    return pb.ReplayMove(
        partition=move.partition, position=move.position, back_to=move.back_to, events=move.events, lost=move.lost
    )


def _waiting(event: WaitingEvent) -> pb.OutboxEvent:
    found = pb.OutboxEvent(
        event_id=str(event.event_id),
        topic=event.topic,
        partition=event.partition,
        key=event.key,
        type=event.type,
        version=event.version,
        bytes=event.size,
    )
    _set(found.occurred_at, event.occurred_at)
    return found
