"""Articles in Postgres: every function is one change or read inside a transaction that its caller owns.

`api.py` calls it. Every change touches one article's row first, so nothing here can deadlock. What others are to hear
of a change is written into the outbox by the statement that makes it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from amends_events import with_event

from shop.catalog.events.v1.catalog_pb2 import ArticleChanged, ArticlePriced, ArticleWithdrawn
from shop.types.v1 import types_pb2
from shop_catalog.domain import Article, ArticleUnknown, Description, Money, PriceSince

if TYPE_CHECKING:
    from amends_chassis.database import Connection
    from amends_events import Outbox
    from asyncpg import Record

_PUT = with_event(
    "INSERT INTO article (sku, name, description, category) VALUES ($1, $2, $3, $4)"
    " ON CONFLICT (sku) DO UPDATE SET name = excluded.name, description = excluded.description,"
    " category = excluded.category, withdrawn = false, version = article.version + 1,"
    " text_at = clock_timestamp()"
    " WHERE (article.name, article.description, article.category, article.withdrawn)"
    " IS DISTINCT FROM (excluded.name, excluded.description, excluded.category, false)"
    " RETURNING version, text_at AS occurred_at",
    4,
    timed=True,
)
_PRICE = with_event(
    "UPDATE article SET currency = $2, minor = $3, version = version + 1, priced_at = clock_timestamp()"
    " WHERE sku = $1 AND (currency, minor) IS DISTINCT FROM ($2, $3) RETURNING version, priced_at AS occurred_at",
    3,
    timed=True,
)
_WITHDRAW = with_event(
    "UPDATE article SET withdrawn = true, version = version + 1, text_at = clock_timestamp()"
    " WHERE sku = $1 AND NOT withdrawn RETURNING version, text_at AS occurred_at",
    1,
    timed=True,
)
_LATEST_PRICES = 100


async def put(connection: "Connection", outbox: "Outbox", sku: str, told: Description) -> Article:
    """Write an article and return it as it is now; the same again changes nothing."""
    changed = outbox.row(ArticleChanged(sku=sku, name=told.name, description=told.text, category=told.category))
    await connection.execute(_PUT, sku, told.name, told.text, told.category, *changed.values)
    return await article_of(connection, sku)


async def set_price(connection: "Connection", outbox: "Outbox", sku: str, price: Money) -> Article:
    """Set what one piece costs from now on, and return the article; the same again changes nothing.

    Raises ArticleUnknown.
    """
    priced = outbox.row(
        ArticlePriced(sku=sku, price=types_pb2.Money(currency=price.currency, minor=price.minor)),
    )
    version = await connection.fetchval(_PRICE, sku, price.currency, price.minor, *priced.values)
    if version is not None:
        await connection.execute(
            "INSERT INTO price (sku, version, currency, minor) VALUES ($1, $2, $3, $4)",
            sku,
            version,
            price.currency,
            price.minor,
        )
    return await article_of(connection, sku)


async def withdraw(connection: "Connection", outbox: "Outbox", sku: str) -> Article:
    """Take an article out of the shop, and return it; a second time changes nothing. Raises ArticleUnknown."""
    row = outbox.row(ArticleWithdrawn(sku=sku))
    await connection.execute(_WITHDRAW, sku, *row.values)
    return await article_of(connection, sku)


async def article_of(connection: "Connection", sku: str) -> Article:
    """Read an article. Raises ArticleUnknown."""
    row = await connection.fetchrow("SELECT * FROM article WHERE sku = $1", sku)
    if row is None:
        raise ArticleUnknown(f"there is no article {sku}")
    return _article(row)


async def page(
    connection: "Connection", category: str | None, after: Sequence[str] | None, count: int
) -> list[Article]:
    """Read up to `count` articles that are sold, by name and sku, those behind `after` (name, sku)."""
    rows = await connection.fetch(
        "SELECT * FROM article WHERE NOT withdrawn AND ($1::text IS NULL OR category = $1)"
        " AND ($2::text IS NULL OR (name, sku) > ($2, $3)) ORDER BY name, sku LIMIT $4",
        category,
        *(after or (None, None)),
        count,
    )
    return [_article(row) for row in rows]


async def categories(connection: "Connection") -> list[tuple[str, int]]:
    """Read the categories, by name, and how many articles of each are sold."""
    rows = await connection.fetch(
        "SELECT category, count(*) FROM article WHERE NOT withdrawn GROUP BY category ORDER BY category LIMIT 1000"
    )
    return [(name, number) for name, number in rows]


async def prices_of(connection: "Connection", sku: str) -> list[PriceSince]:
    """Read what an article has cost, the latest first. Raises ArticleUnknown."""
    await article_of(connection, sku)
    rows = await connection.fetch(
        "SELECT currency, minor, since FROM price WHERE sku = $1 ORDER BY version DESC LIMIT $2", sku, _LATEST_PRICES
    )
    return [PriceSince(Money(currency, minor), since) for currency, minor, since in rows]


def _article(row: "Record") -> Article:
    price = None if row["minor"] is None else Money(row["currency"], row["minor"])
    told = Description(row["name"], row["description"], row["category"])
    return Article(row["sku"], told, price, row["withdrawn"], row["version"])
