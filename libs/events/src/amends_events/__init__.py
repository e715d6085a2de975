"""Events of a Python service with Postgres: outbox, relay, broker, inbox."""

from amends_events.broker import (
    AppendRefusedError,
    Broker,
    BrokerError,
    Ends,
    EventRecord,
    LogEntry,
    NoTopicError,
    PositionLostError,
    TopicError,
    UnknownError,
)
from amends_events.brokers import open_broker
from amends_events.consumer import Batches, Consumer
from amends_events.envelope import CloudEvent, cause, caused_by
from amends_events.meter import Meter, Result, Silent
from amends_events.outbox import EventRefusedError, Outbox, Row, with_event, with_events
from amends_events.partition import BatchHandler, EventHandler, TransientError, is_transient
from amends_events.relay import Relay
from amends_events.schema import DECISIONS, INBOX, OUTBOX, SENT
from amends_events.topics import ContractError, EventType, Topic, declared_topics, event_type, topic_of

__all__ = [
    "DECISIONS",
    "INBOX",
    "OUTBOX",
    "SENT",
    "AppendRefusedError",
    "BatchHandler",
    "Batches",
    "Broker",
    "BrokerError",
    "CloudEvent",
    "Consumer",
    "ContractError",
    "Ends",
    "EventHandler",
    "EventRecord",
    "EventRefusedError",
    "EventType",
    "LogEntry",
    "Meter",
    "NoTopicError",
    "Outbox",
    "PositionLostError",
    "Relay",
    "Result",
    "Row",
    "Silent",
    "Topic",
    "TopicError",
    "TransientError",
    "UnknownError",
    "cause",
    "caused_by",
    "declared_topics",
    "event_type",
    "is_transient",
    "open_broker",
    "topic_of",
    "with_event",
    "with_events",
]
