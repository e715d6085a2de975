"""Copies of articles and their prices in Postgres, by which orders are priced. They belong to the catalog service.

`catalogue.py` writes what catalog tells, `api.py` and `order_process.py` read. A copy has catalog's version, so
whatever comes late or twice changes nothing.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from shop_orders.domain import ArticleCopy, Money

if TYPE_CHECKING:
    from amends_chassis.database import Connection, Executes

MAX_ARTICLES = 100


async def set_price(connection: "Executes", sku: str, price: Money, version: int | None) -> None:
    """Set what one piece of an article costs from now on, unless a later version of the article is known.

    `version` is catalog's; None where prices are set here.
    """
    await connection.execute(
        "INSERT INTO price (sku, currency, minor, version) VALUES ($1, $2, $3, coalesce($4::bigint, 0))"
        " ON CONFLICT (sku) DO UPDATE SET currency = excluded.currency, minor = excluded.minor,"
        " version = coalesce($4, price.version) WHERE price.version <= coalesce($4, price.version)",
        sku,
        price.currency,
        price.minor,
        version,
    )


async def copy_article(connection: "Executes", sku: str, version: int, *, name: str | None, withdrawn: bool) -> None:
    """Write down what catalog told of an article, unless something later is known; no name leaves the known one."""
    await connection.execute(
        "INSERT INTO article (sku, name, withdrawn, version) VALUES ($1, coalesce($2, ''), $3, $4)"
        " ON CONFLICT (sku) DO UPDATE SET name = coalesce($2, article.name), withdrawn = excluded.withdrawn,"
        " version = excluded.version WHERE article.version < excluded.version",
        sku,
        name,
        withdrawn,
        version,
    )


async def prices(connection: "Connection", skus: Iterable[str]) -> dict[str, Money]:
    """Read the prices of those articles that have one and can be ordered."""
    rows = await connection.fetch(
        "SELECT sku, currency, minor FROM price WHERE sku = ANY($1::text[])"
        " AND NOT EXISTS (SELECT FROM article WHERE article.sku = price.sku AND withdrawn)",
        list(skus),
    )
    return {row["sku"]: Money(row["currency"], row["minor"]) for row in rows}


async def articles_of(connection: "Connection", skus: Sequence[str]) -> list[ArticleCopy]:
    """Read the copies of these articles, by sku; of the first MAX_ARTICLES when none are named."""
    rows = await connection.fetch(
        "SELECT sku, coalesce(name, '') AS name, currency, minor, coalesce(withdrawn, false) AS withdrawn"
        " FROM price FULL JOIN article USING (sku) WHERE $1::text[] = '{}' OR sku = ANY($1) ORDER BY sku LIMIT $2",
        skus,
        MAX_ARTICLES,
    )
    return [
        ArticleCopy(
            row["sku"],
            row["name"],
            None if row["minor"] is None else Money(row["currency"], row["minor"]),
            row["withdrawn"],
        )
        for row in rows
    ]
