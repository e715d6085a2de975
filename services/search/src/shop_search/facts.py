"""What search takes from the events: the whole state of one part of an article each, free of SQL and of brokers.

Text, price and stock are told by events of their own, with versions that grow. The one with the largest version holds,
whatever comes twice or late. Used by the consumer, and by what is exported.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from amends_events import Topic, event_type
from google.protobuf.message import Message

from shop.catalog.events.v1.catalog_pb2 import ArticleChanged, ArticlePriced, ArticleWithdrawn
from shop.inventory.events.v1.inventory_pb2 import StockChanged


class TextFact(NamedTuple):
    """What an article is called and where it is found; all None when it is not sold any more."""

    sku: str
    version: int
    name: str | None
    description: str | None
    category: str | None


class PriceFact(NamedTuple):
    """What one piece of an article costs, in minor units."""

    sku: str
    version: int
    currency: str
    minor: int


class StockFact(NamedTuple):
    """How many pieces of an article can be ordered."""

    sku: str
    version: int
    available: int


ArticleFact = TextFact | PriceFact | StockFact


def _changed(sku: str, version: int, event: ArticleChanged) -> ArticleFact:
    return TextFact(sku, version, event.name, event.description, event.category)


def _withdrawn(sku: str, version: int, event: ArticleWithdrawn) -> ArticleFact:
    return TextFact(sku, version, None, None, None)


def _priced(sku: str, version: int, event: ArticlePriced) -> ArticleFact:
    return PriceFact(sku, version, event.price.currency, event.price.minor)


def _stocked(sku: str, version: int, event: StockChanged) -> ArticleFact:
    return StockFact(sku, version, event.available)


_KINDS: Mapping[type[Message], Callable[[str, int, Any], ArticleFact]] = {
    ArticleChanged: _changed,
    ArticleWithdrawn: _withdrawn,
    ArticlePriced: _priced,
    StockChanged: _stocked,
}
_READ = {str(message.DESCRIPTOR.full_name): read for message, read in _KINDS.items()}

TYPES: Mapping[str, type[Message]] = {str(message.DESCRIPTOR.full_name): message for message in _KINDS}
"""The events that are read, by the full names of their messages."""

SOURCES: Mapping[str, Topic] = {
    "catalog": event_type(ArticleChanged).topic,
    "inventory": event_type(StockChanged).topic,
}
"""The topics that are read, by the services that export what they told there."""


def fact(event: str, key: str, version: int, message: Any) -> ArticleFact:
    """Return what an event says; `event` is the full name of its message."""
    return _READ[event](key, version, message)
