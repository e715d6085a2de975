"""The broker port over NATS JetStream (2.12 or newer): a stream for each partition, written in atomic batches.

A stream of its own gives each partition positions without gaps, so that whatever the log has forgotten is seen. A
batch is stored whole or not at all and costs one fsync. There are no durable consumers: after a kill -9 the server
forgets acknowledged messages of those, and ours are in Postgres. Made by `open_broker`.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from amends_events.broker import (
    AppendRefusedError,
    Ends,
    EventRecord,
    LogEntry,
    PositionLostError,
    TopicError,
    UnknownError,
    no_topic,
    other_partitions,
)
from amends_events.topics import Topic

CALL_TIMEOUT = timedelta(seconds=5)
"""A request that is under way while the server dies is never answered."""
CONNECT_TIMEOUT = timedelta(seconds=2)
CLOSE_TIMEOUT = timedelta(seconds=1)
DUPLICATE_WINDOW = timedelta(minutes=2)
INACTIVE_THRESHOLD = timedelta(seconds=30)

_PREFIX = "ce-"
_PARTITIONS = "amends-partitions"
"""How many partitions the topic of a stream has, in its metadata."""
_CONTENT_TYPE = "content-type"
_MESSAGE_ID = "Nats-Msg-Id"
_DUPLICATE_IN_BATCH = 10201
_STREAM_NOT_FOUND = 10059
_NOTHING = ("404", "408")
"""The statuses with which a pull ends that found no more messages."""


T = TypeVar("T")


def _nanoseconds(duration: timedelta) -> int:
    return round(duration / timedelta(microseconds=1)) * 1000


class _ApiError(Exception):
    """JetStream has answered a request with an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error.get('description', 'no description')} (err_code {error.get('err_code')})")
        self.code = int(error.get("err_code", 0))


class _Client(Client):
    """A client that reads the headers of events in a third of the time: reading a log is mostly that.

    What it overrides is nats-py's own; were it called otherwise there, this would be without effect.
    """

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        """Return the headers of a message; those that are not written as every client does are left to nats-py."""
        lines = raw.decode("utf-8", "replace").rstrip("\r\n").split("\r\n")
        headers = {pair[0]: pair[2].strip() for line in lines if (pair := line.partition(": "))[1]}
        names = "".join(headers)
        if len(headers) == len(lines) and names.isascii() and names.isprintable() and " " not in names:
            return headers
        return Client._parse_header_lines(raw)


class _Link:
    """One connection. It is never mended: after a restart of the server a mended one may be deaf without a sign."""

    def __init__(self) -> None:
        self.client = _Client()
        self.lost = asyncio.Event()

    async def open(self, url: str) -> None:
        """Connect once. Raises UnknownError when the server is away."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT.total_seconds()):
                await self.client.connect(url, allow_reconnect=False, disconnected_cb=self._end, error_cb=_ignore)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            await self.close()
            raise UnknownError(f"NATS at {url.rpartition('@')[2]} is away: {type(error).__name__}") from error

    async def _end(self) -> None:
        self.lost.set()

    async def within(self, call: Awaitable[T], timeout: timedelta) -> T:
        """Return what a call returns. Raises UnknownError when the connection is lost or the time has passed."""
        work, lost = asyncio.ensure_future(call), asyncio.ensure_future(self.lost.wait())
        try:
            await asyncio.wait({work, lost}, timeout=timeout.total_seconds(), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return await work
            raise UnknownError("the connection to NATS was lost" if self.lost.is_set() else "NATS does not answer")
        finally:
            work.cancel()
            lost.cancel()

    async def close(self) -> None:
        """Let the connection go; whoever waits on it is told."""
        self.lost.set()
        with suppress(nats.errors.Error, OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT.total_seconds()):
                await self.client.close()


class NatsBroker:
    """The log in a NATS server."""

    def __init__(self, url: str) -> None:
        """Take a nats:// URL; a connection is made at the first use, and another one whenever it is lost."""
        self._url = url
        self._link: _Link | None = None
        self._connecting = asyncio.Lock()

    async def ensure(self, topics: Sequence[Topic], retention: timedelta) -> None:
        """Make a stream for each partition that has none; streams that are there keep their settings."""
        names = await self._streams()
        for topic in topics:
            there = _partitions(topic.name, names)
            if there and len(there) != topic.partitions:
                made = await self._made_with(topic.name, there)
                if made != topic.partitions:
                    raise other_partitions(topic, made)
            missing = set(range(topic.partitions)) - set(there)
            await asyncio.gather(*(self._make(topic, partition, retention) for partition in sorted(missing)))

    async def _made_with(self, topic: str, there: Sequence[int]) -> int:
        """Return the number of partitions that a topic was made with: whoever made it may have died before the last."""
        try:
            info = await self._ask(f"$JS.API.STREAM.INFO.{_stream(topic, there[0])}", None)
        except _ApiError as error:
            raise UnknownError(str(error)) from error
        return int(info["config"].get("metadata", {}).get(_PARTITIONS, len(there)))

    async def _streams(self) -> set[str]:
        found: set[str] = set()
        while True:
            try:
                answer = await self._ask("$JS.API.STREAM.NAMES", {"offset": len(found)})
            except _ApiError as error:
                raise UnknownError(str(error)) from error
            page = answer.get("streams") or []
            found.update(page)
            if not page or len(found) >= answer["total"]:
                return found

    async def _make(self, topic: Topic, partition: int, retention: timedelta) -> None:
        stream = _stream(topic.name, partition)
        config = {
            "name": stream,
            "subjects": [_subject(topic.name, partition)],
            "metadata": {_PARTITIONS: str(topic.partitions)},
            "storage": "file",
            "retention": "limits",
            "discard": "new",  # a full log refuses, so the outbox keeps; the other way would lose
            "max_age": _nanoseconds(retention),
            "duplicate_window": _nanoseconds(min(DUPLICATE_WINDOW, retention)),
            "allow_atomic": True,
            "allow_direct": True,
        }
        try:
            await self._ask(f"$JS.API.STREAM.CREATE.{stream}", config)
        except _ApiError as error:
            raise TopicError(f"the stream {stream} cannot be made: {error}") from error

    async def append(self, topic: str, partition: int, records: Sequence[EventRecord]) -> int:
        """Store the records as one atomic batch; one by one only when the log has some of them already."""
        if len(records) > 1:
            try:
                await self._append_batch(topic, partition, records)
                return 0
            except _ApiError as error:
                if error.code != _DUPLICATE_IN_BATCH:
                    raise AppendRefusedError(str(error)) from error
        duplicates = 0
        for record in records:
            try:
                answer = await self._publish(topic, partition, record, {})
            except _ApiError as error:
                if duplicates or record is not records[0]:
                    raise UnknownError(str(error)) from error  # those before this one are stored
                raise AppendRefusedError(str(error)) from error
            duplicates += bool(answer.get("duplicate"))
        return duplicates

    async def _append_batch(self, topic: str, partition: int, records: Sequence[EventRecord]) -> None:
        link = await self._connected()
        batch = uuid4().hex
        try:
            for number, record in enumerate(records[:-1], 1):
                await link.client.publish(
                    _subject(topic, partition),
                    record.payload,
                    headers=_headers(record, {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}),
                )
        except (nats.errors.Error, OSError) as error:
            raise UnknownError(f"{type(error).__name__}: {error}") from error
        last = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(len(records)), "Nats-Batch-Commit": "1"}
        answer = await self._publish(topic, partition, records[-1], last)
        if answer.get("count") != len(records):
            raise UnknownError(f"a batch of {len(records)} was acknowledged as {answer.get('count')}")

    async def _publish(self, topic: str, partition: int, record: EventRecord, extra: dict[str, str]) -> dict[str, Any]:
        return await self._request(_subject(topic, partition), record.payload, _headers(record, extra))

    async def read(
        self, topic: str, partition: int, after: int, *, limit: int = 100, wait: timedelta = timedelta(seconds=1)
    ) -> AsyncGenerator[list[LogEntry], None]:
        """Read through an ephemeral pull consumer without acknowledgements, which ends with the reading."""
        link = await self._connected()
        reader = _PullReader(link, _stream(topic, partition), limit, wait)
        expected = after + 1
        try:
            await reader.open(await self._consumer(topic, partition, expected))
            while True:
                messages = await reader.next()
                batch = [_stored(message) for message in messages]
                for stored in batch:
                    if stored.position != expected:
                        raise PositionLostError(
                            f"{_stream(topic, partition)} goes on with {stored.position} where {expected} should be"
                        )
                    expected += 1
                if not batch:
                    await self._doubt(topic, partition, expected)
                yield batch
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise UnknownError(f"{type(error).__name__}: {error}") from error
        finally:
            await reader.close()

    async def _consumer(self, topic: str, partition: int, start: int) -> str:
        stream = _stream(topic, partition)
        config = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": start,
            "ack_policy": "none",
            "replay_policy": "instant",
            "inactive_threshold": _nanoseconds(INACTIVE_THRESHOLD),
            "mem_storage": True,
        }
        try:
            answer = await self._ask(
                f"$JS.API.CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config, "action": "create"}
            )
        except _ApiError as error:
            raise UnknownError(f"{stream} cannot be read: {error}") from error
        return str(answer["name"])

    async def _doubt(self, topic: str, partition: int, expected: int) -> None:
        """Raise when the log has what a reader that hears nothing should have been given."""
        ends = await self._ends(topic, partition)
        if ends.first > expected or ends.last < expected - 1:
            raise PositionLostError(f"{_stream(topic, partition)} has {ends.first} to {ends.last}, not {expected}")
        if ends.last >= expected:
            raise UnknownError(f"{_stream(topic, partition)} has {ends.last}, and its reader hears nothing")

    async def ends(self, topic: str) -> dict[int, Ends]:
        """Return the ends of each partition's stream."""
        partitions = _partitions(topic, await self._streams())
        if not partitions:
            raise no_topic(topic)
        ends = await asyncio.gather(*(self._ends(topic, partition) for partition in partitions))
        return dict(zip(partitions, ends, strict=True))

    async def _ends(self, topic: str, partition: int) -> Ends:
        try:
            state = (await self._ask(f"$JS.API.STREAM.INFO.{_stream(topic, partition)}", None))["state"]
        except _ApiError as error:
            if error.code == _STREAM_NOT_FOUND:
                raise no_topic(topic) from error
            raise UnknownError(str(error)) from error
        last = int(state["last_seq"])
        return Ends(int(state["first_seq"]) if state["messages"] else last + 1, last)

    async def close(self) -> None:
        """Close the connection."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def _connected(self) -> _Link:
        """Return the connection, made when there is none. Raises UnknownError while the server is away."""
        async with self._connecting:
            if self._link is not None and self._link.lost.is_set():
                await self.close()
            if self._link is None:
                link = _Link()
                await link.open(self._url)
                self._link = link
            return self._link

    async def _ask(self, subject: str, question: dict[str, Any] | None) -> dict[str, Any]:
        payload = b"" if question is None else json.dumps(question).encode()
        return await self._request(subject, payload, None)

    async def _request(self, subject: str, payload: bytes, headers: dict[str, str] | None) -> dict[str, Any]:
        link = await self._connected()
        call = link.client.request(subject, payload, timeout=CALL_TIMEOUT.total_seconds(), headers=headers)
        try:
            reply = await link.within(call, CALL_TIMEOUT)
        except nats.errors.NoRespondersError as error:
            raise AppendRefusedError(f"nobody listens to {subject}: is the topic there, and JetStream on?") from error
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise UnknownError(f"{type(error).__name__}: {error}") from error
        answer: dict[str, Any] = json.loads(reply.data)
        if "error" in answer:
            raise _ApiError(answer["error"])
        return answer


class _PullReader:
    """Pulls from one ephemeral consumer: a pull is answered as messages come, and again when it is used up."""

    def __init__(self, link: _Link, stream: str, limit: int, wait: timedelta) -> None:
        self._link = link
        self._client = link.client
        self._stream = stream
        self._limit = limit
        self._wait = wait
        self._due = 0
        """How many messages the pull that is under way may still bring."""
        self._came: asyncio.Queue[Msg] = asyncio.Queue()
        self._subscription: Any = None
        self._consumer = ""
        self._inbox = ""

    async def open(self, consumer: str) -> None:
        """Begin to listen for what the consumer is asked for."""
        self._consumer = consumer
        self._inbox = self._client.new_inbox()
        self._subscription = await self._client.subscribe(self._inbox, cb=self._came.put)

    async def next(self) -> list[Msg]:
        """Return the messages that are there, waiting for the first. Raises UnknownError when not even an end came."""
        if not self._due:
            await self._pull()
        messages: list[Msg] = []
        message = await self._link.within(self._came.get(), self._wait + CALL_TIMEOUT)
        while True:
            # An end has nowhere to acknowledge it to; an event may have a header of this name.
            status = None if message.reply else (message.headers or {}).get("Status")
            if status is None:
                messages.append(message)
                self._due -= 1
            elif status in _NOTHING:
                self._due = 0
            else:
                raise UnknownError(f"the pull from {self._stream} ended with {status}")
            if not self._due or self._came.empty():
                return messages
            message = self._came.get_nowait()

    async def _pull(self) -> None:
        question = {"batch": self._limit, "expires": _nanoseconds(self._wait)}
        self._due = self._limit
        await self._client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}", json.dumps(question).encode(), self._inbox
        )

    async def close(self) -> None:
        """Stop listening; the server forgets the consumer when nobody pulls from it any more."""
        if self._subscription is not None:
            with suppress(nats.errors.Error, OSError):
                await self._subscription.unsubscribe()


async def _ignore(error: Exception) -> None:
    """Leave errors of the connection to those who use it: their calls fail."""


def _slug(topic: str) -> str:
    return topic.replace(".", "-")


def _stream(topic: str, partition: int) -> str:
    return f"{_slug(topic)}-{partition}"


def _partitions(topic: str, streams: Iterable[str]) -> list[int]:
    """Return the partitions of a topic that have a stream."""
    name = re.compile(rf"{re.escape(_slug(topic))}-(\d+)")
    return sorted(int(match[1]) for match in map(name.fullmatch, streams) if match)


def _subject(topic: str, partition: int) -> str:
    return f"{topic}.{partition}"


def _headers(record: EventRecord, extra: dict[str, str]) -> dict[str, str]:
    attributes = dict(record.attributes)
    headers = {_CONTENT_TYPE: attributes.pop("datacontenttype", "")}
    headers |= {f"{_PREFIX}{name}": value for name, value in attributes.items()}
    return headers | {_MESSAGE_ID: attributes["id"]} | extra


def _stored(message: Msg) -> LogEntry:
    headers = message.headers or {}
    attributes = {name.removeprefix(_PREFIX): value for name, value in headers.items() if name.startswith(_PREFIX)}
    if _CONTENT_TYPE in headers:
        attributes["datacontenttype"] = headers[_CONTENT_TYPE]
    return LogEntry(_position(message.reply), EventRecord(attributes, message.data))


def _position(reply: str) -> int:
    """Read the sequence in the stream from where an acknowledgement would go to.

    $JS.ACK.STREAM.CONSUMER.DELIVERED.SEQUENCE and four more; of newer servers with a domain and an account before the
    stream: https://docs.nats.io/reference/reference-protocols/nats_api_reference.
    """
    tokens = reply.split(".")
    return int(tokens[5 if len(tokens) == 9 else 7])
