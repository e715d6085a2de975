"""The port to a broker: a log in partitions, and nothing else.

Positions, leases and what became of an event are in the consumer's Postgres, so a broker has no acknowledgements, no
groups and no redelivery to differ by. `nats` and `kafka` are behind it; both pass tests/test_brokers.py. `open_broker`
of `brokers` chooses.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from amends_events.topics import Topic

MAX_BATCH = 256
"""The largest number of records in one append; every broker takes as many."""


class BrokerError(Exception):
    """A broker did not do what it was asked."""


class AppendRefusedError(BrokerError):
    """The broker has said no and has stored nothing: the log is full, the topic is not there. Trying again may help."""


class NoTopicError(AppendRefusedError):
    """The topic is not there: nobody has made it yet, or the broker has lost it."""


class UnknownError(BrokerError):
    """The broker is away, or did not answer: it may have stored the records, and only trying again tells."""


class PositionLostError(BrokerError):
    """The log does not have what comes after the position: it forgot too early, or is another log by now."""


class TopicError(BrokerError):
    """The topic is there with another number of partitions, or cannot be made. A person has to look."""


def no_topic(topic: str) -> NoTopicError:
    """Return the refusal of a topic that nobody has made."""
    return NoTopicError(f"there is no topic {topic}: the service that publishes to it makes it when it starts")


def other_partitions(topic: Topic, there: int) -> TopicError:
    """Return the refusal of a topic that was made with another number of partitions than its contract says."""
    return TopicError(
        f"the topic {topic.name} has {there} partitions and should have {topic.partitions}: "
        "the number cannot change, make a topic of another name"
    )


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One event on its way to or from a broker."""

    attributes: Mapping[str, str]
    """The CloudEvents attributes; `id` and `subject` are there whenever the record came through an outbox."""
    payload: bytes


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A record and where it is in the log of its partition."""

    position: int
    """From 1, one more for each record of the partition."""
    record: EventRecord


@dataclass(frozen=True, slots=True)
class Ends:
    """The ends of one partition's log. An empty log has `first` = `last` + 1."""

    first: int
    """The position of the oldest record that is still there."""
    last: int
    """The position of the newest record; 0 when there was never one."""


class Broker(Protocol):
    """A log of events in partitions."""

    async def ensure(self, topics: Sequence[Topic], retention: timedelta) -> None:
        """Make the topics that are not there, keeping records for `retention`. Raises TopicError, UnknownError."""
        ...

    async def append(self, topic: str, partition: int, records: Sequence[EventRecord]) -> int:
        """Store up to MAX_BATCH records in this order and return how many of them the log had already.

        All of them are stored, durably, when this returns. Raises AppendRefusedError when none is; UnknownError when
        some, all or none may be. Whoever tries again with the same records changes no order: the first occurrence of
        each stays where it is.
        """
        ...

    def read(
        self, topic: str, partition: int, after: int, *, limit: int = 100, wait: timedelta = timedelta(seconds=1)
    ) -> AsyncGenerator[list[LogEntry], None]:
        """Read what comes after a position, in order, in batches of up to `limit`, for ever.

        A batch is empty when nothing came for `wait`. Raises PositionLostError, and UnknownError upon any doubt: then
        read again from where you are.
        """
        ...

    async def ends(self, topic: str) -> dict[int, Ends]:
        """Return the ends of all partitions of a topic. Raises NoTopicError, UnknownError."""
        ...

    async def close(self) -> None:
        """Let the broker go; what is under way fails with UnknownError."""
        ...
