"""What the catalogue keeps, told again as the last event of each part of an article. Assembled by `__main__.py`.

An article has one version, which a change of its text and one of its price make larger: those of prices are kept, and
the largest other one is that of the text.
"""

from collections.abc import Iterable
from typing import Any

from amends_chassis.export import Exported, ExportedTable
from google.protobuf.message import Message

from shop.catalog.events.v1.catalog_pb2 import ArticleChanged, ArticlePriced, ArticleWithdrawn
from shop.types.v1.types_pb2 import Money

_ARTICLES = """
SELECT article.*,
       (SELECT max(price.version) FROM price WHERE price.sku = article.sku) AS price_version,
       (SELECT max(number) FROM generate_series(1, article.version) AS number
        WHERE NOT EXISTS (SELECT FROM price WHERE price.sku = article.sku AND price.version = number)) AS text_version
FROM article
"""


def _article(row: Any) -> Iterable[Exported]:
    price = Money(currency=row["currency"], minor=row["minor"])
    priced = (ArticlePriced(sku=row["sku"], price=price), row["price_version"], row["priced_at"])
    text = (_text(row), row["text_version"], row["text_at"])
    told = [text] if row["price_version"] is None else [text, priced]
    return sorted(told, key=lambda one: int(one[1]))


def _text(row: Any) -> Message:
    if row["withdrawn"]:
        return ArticleWithdrawn(sku=row["sku"])
    return ArticleChanged(sku=row["sku"], name=row["name"], description=row["description"], category=row["category"])


EXPORTED = (ExportedTable(_ARTICLES, "article.sku", _article),)
