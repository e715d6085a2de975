"""What the catalogue keeps, told again as the events that led to it. Assembled by `__main__.py`.

Each article is told as it is now, with its newest version: an article that was withdrawn had a text one version before.
"""

from collections.abc import Iterable
from typing import Any

from amends_chassis.export import Exported, ExportedTable

from shop.catalog.events.v1.catalog_pb2 import ArticleChanged, ArticlePriced, ArticleWithdrawn
from shop.types.v1.types_pb2 import Money


def _article(row: Any) -> Iterable[Exported]:
    sku, version, now = row["sku"], row["version"], row["told_at"]
    told = ArticleChanged(sku=sku, name=row["name"], description=row["description"], category=row["category"])
    yield told, version - 1 if row["withdrawn"] else version, now
    if row["minor"] is not None:
        yield ArticlePriced(sku=sku, price=Money(currency=row["currency"], minor=row["minor"])), version, now
    if row["withdrawn"]:
        yield ArticleWithdrawn(sku=sku), version, now


EXPORTED = (ExportedTable("SELECT article.*, now() AS told_at FROM article", "sku", _article),)
