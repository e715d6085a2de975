"""One index: its schema, its consumer, and what it has taken in. Made by `parts.py`.

Each part of an article is written when its version is larger than the one that is there, so it may come twice, late,
and from the log and an export at once. An article that is not sold any more leaves its version, so that nothing older
can bring it back. Catalog's events and inventory's write
tables of their own, so those who read them never wait for each other.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from amends_events import Batches, CloudEvent

from shop_search import domain
from shop_search.facts import TYPES, ArticleFact, PriceFact, StockFact, TextFact, fact

if TYPE_CHECKING:
    from amends_chassis.database import Connection

NAME = "search"
"""The first part of the names under which indexes consume."""
LAYOUT = 1
"""What the tables look like that this code writes: the number of make_projection's last change."""
BATCH = 500
"""So many events are one transaction at most."""

FactOfOne = TypeVar("FactOfOne", TextFact, PriceFact, StockFact)

_TEXT = """
INSERT INTO {schema}.article AS a (sku, text_version, name, category, document)
SELECT sku, version, name, category,
    setweight(to_tsvector('public.words', coalesce(name_words, '')), 'A')
    || setweight(to_tsvector('public.words', coalesce(category_words, '')), 'B')
    || setweight(to_tsvector('public.words', coalesce(description_words, '')), 'D')
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
    AS told (sku, version, name, category, name_words, category_words, description_words)
ON CONFLICT (sku) DO UPDATE SET text_version = excluded.text_version, name = excluded.name,
    category = excluded.category, document = excluded.document
WHERE excluded.text_version > a.text_version
"""
# Sorted, so that those who write the same words at once do not wait for each other in a circle.
_WORDS = """
INSERT INTO {schema}.word (word, stem)
SELECT plain, (ts_lexize('english_stem', plain))[1]
FROM (SELECT DISTINCT unaccent(word) AS plain FROM unnest($1::text[]) AS word) AS found ORDER BY plain
ON CONFLICT (word) DO NOTHING
"""
_PRICES = """
INSERT INTO {schema}.article AS a (sku, price_version, currency, minor)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[])
ON CONFLICT (sku) DO UPDATE SET price_version = excluded.price_version, currency = excluded.currency,
    minor = excluded.minor
WHERE excluded.price_version > a.price_version
"""
_STOCK = """
INSERT INTO {schema}.stock AS s (sku, version, available)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[])
ON CONFLICT (sku) DO UPDATE SET version = excluded.version, available = excluded.available
WHERE excluded.version > s.version
"""


class ArticleIndex:
    """An index of articles, whether it serves or not."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.consumer = f"{NAME}@{version}"
        self.schema = f"i{version}"

    @property
    def batches(self) -> Batches:
        """Return what its consumer handles. Rows know which versions they have, so no inbox is needed."""
        return Batches(tuple(TYPES.values()), self._handle, remembers=False)

    async def take(self, connection: "Connection", told: Iterable[ArticleFact]) -> None:
        """Take facts in, in the transaction of `connection`; what is known already changes nothing."""
        every = list(told)
        if texts := _latest(one for one in every if isinstance(one, TextFact)):
            await self._take_texts(connection, texts)
        if prices := _latest(one for one in every if isinstance(one, PriceFact)):
            await connection.execute(_PRICES.format(schema=self.schema), *_columns(prices))
        if stock := _latest(one for one in every if isinstance(one, StockFact)):
            await connection.execute(_STOCK.format(schema=self.schema), *_columns(stock))

    async def _take_texts(self, connection: "Connection", texts: Sequence[TextFact]) -> None:
        rows, vocabulary = [], set[str]()
        for one in texts:
            name, category = domain.words(one.name or ""), domain.words(one.category or "")
            description = domain.words(one.description or "")
            vocabulary.update(name, category, description)
            cut = [" ".join(found) for found in (name, category, description)]
            rows.append((one.sku, one.version, one.name, one.category, *cut))
        await connection.execute(_TEXT.format(schema=self.schema), *_columns(rows))
        await connection.execute(_WORDS.format(schema=self.schema), list(vocabulary))

    async def _handle(self, connection: Any, events: Sequence[tuple[CloudEvent, Any]]) -> None:
        await self.take(connection, [fact(event.type, event.key, event.version, told) for event, told in events])


def _latest(facts: Iterable[FactOfOne]) -> list[FactOfOne]:
    """Return the fact with the largest version of each article, by article: a statement writes a row once."""
    latest: dict[str, FactOfOne] = {}
    for one in facts:
        known = latest.get(one.sku)
        if known is None or one.version > known.version:
            latest[one.sku] = one
    return [latest[sku] for sku in sorted(latest)]


def _columns(rows: Iterable[Sequence[Any]]) -> tuple[list[Any], ...]:
    """Return rows by column, as the parameters of a statement."""
    return tuple(map(list, zip(*rows, strict=True)))
