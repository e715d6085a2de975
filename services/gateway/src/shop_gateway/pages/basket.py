"""The basket: which articles a visitor wants and how many. It is kept in the visitor's own cookie."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from amends_chassis.domain import identifier

from shop.types.v1.types_pb2 import Line

MOST_ARTICLES = 20
"""Different articles in a basket: a cookie has 4 KiB."""
MOST_PIECES = 99
"""Of one article."""


class BasketFullError(Exception):
    """There is no room for another article."""


@dataclass(frozen=True, slots=True)
class Basket:
    """How many pieces of which article, in the order in which they were added."""

    pieces: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, kept: Any) -> "Basket":
        """Read what `kept` returned; an empty basket when there is nothing."""
        return cls(dict(kept)) if isinstance(kept, dict) else cls()

    @property
    def kept(self) -> dict[str, int]:
        """Return it as plain JSON."""
        return dict(self.pieces)

    @property
    def count(self) -> int:
        """Return how many pieces there are in all."""
        return sum(self.pieces.values())

    @property
    def lines(self) -> list[Line]:
        """Return it as an order has it."""
        return [Line(sku=sku, quantity=pieces) for sku, pieces in self.pieces.items()]

    def add(self, sku: str, pieces: int) -> "Basket":
        """Return the basket with more pieces of an article. Raises what `put` does."""
        return self.put(sku, self.pieces.get(sku, 0) + pieces)

    def put(self, sku: str, pieces: int) -> "Basket":
        """Return the basket with so many pieces of an article; without it for 0.

        Raises BasketFullError, and IdentifierInvalidError for what is the name of no article.
        """
        if pieces <= 0:
            return Basket({other: count for other, count in self.pieces.items() if other != sku})
        if sku not in self.pieces and len(self.pieces) >= MOST_ARTICLES:
            raise BasketFullError
        return Basket({**self.pieces, identifier(sku, "sku"): min(pieces, MOST_PIECES)})
