"""What the catalog service tells others. Read by `__main__.py`."""

from shop.catalog.events.v1.catalog_pb2 import ArticleChanged, ArticlePriced, ArticleWithdrawn

PUBLISHES = (ArticleChanged, ArticlePriced, ArticleWithdrawn)
