"""The rules of the catalogue, free of SQL and gRPC: what an article may be called, and what it may cost.

`api.py` parses requests into these values, `store.py` writes them down.
"""

import re
from dataclasses import dataclass
from datetime import datetime

from amends_chassis.domain import RefusedError, identifier

MAX_NAME = 200
MAX_DESCRIPTION = 5_000
MAX_MINOR = 1_000_000_000  # of a price: an order of many pieces stays far inside 64 bits

_CATEGORY = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_CURRENCY = re.compile(r"[A-Z]{3}")


class ArticleInvalid(RefusedError):
    """An article without a name, or with one that nobody can read."""

    reason = "ARTICLE_INVALID"


class ArticleUnknown(RefusedError):
    """There is no such article, and there never was."""

    reason = "ARTICLE_UNKNOWN"


class PriceInvalid(RefusedError):
    """The price has no currency, is nothing, or is more than an article may cost."""

    reason = "PRICE_INVALID"


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in the currency's minor unit, e.g. cents."""

    currency: str
    minor: int


@dataclass(frozen=True, slots=True)
class Description:
    """What people are told about an article."""

    name: str
    text: str
    category: str


@dataclass(frozen=True, slots=True)
class Article:
    """An article as it stands; `price` is None while it has none."""

    sku: str
    description: Description
    price: Money | None
    withdrawn: bool
    version: int


@dataclass(frozen=True, slots=True)
class PriceSince:
    """A price, and from when on it held."""

    price: Money
    since: datetime


def description(name: str, text: str, category: str) -> Description:
    """Return what people are told. Raises ArticleInvalid, which names the field."""
    if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        raise ArticleInvalid(f"name must have 1 to {MAX_NAME} printable characters")
    if len(text) > MAX_DESCRIPTION or not all(line.isprintable() for line in text.split("\n")):
        raise ArticleInvalid(f"description must have up to {MAX_DESCRIPTION} printable characters, in lines")
    return Description(name, text, category_name(category))


def category_name(category: str) -> str:
    """Return `category` if it can be the name of one. Raises ArticleInvalid."""
    if not _CATEGORY.fullmatch(category):
        raise ArticleInvalid("category must have 1 to 40 lower-case letters, digits or -")
    return category


def sku_of(sku: str) -> str:
    """Return `sku` if an article can be ordered by it. Raises IdentifierInvalidError."""
    return identifier(sku, "sku")


def price(value: Money) -> Money:
    """Return `value` if an article can cost it. Raises PriceInvalid."""
    if not _CURRENCY.fullmatch(value.currency):
        raise PriceInvalid("the currency must be an ISO 4217 code such as EUR")
    if not 1 <= value.minor <= MAX_MINOR:
        raise PriceInvalid(f"the price must be 1 to {MAX_MINOR} minor units")
    return value
