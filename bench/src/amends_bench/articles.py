"""A catalog that has one article and answers at once: what is behind both sides of `gateway`. Started by `gateway`."""

import asyncio
from typing import Any

import grpc.aio

from amends_bench.process import serve_until_told
from shop.catalog.v1 import catalog_pb2
from shop.catalog.v1.catalog_pb2_grpc import CatalogServiceServicer, add_CatalogServiceServicer_to_server
from shop.types.v1 import types_pb2

ARTICLE = catalog_pb2.Article(
    sku="tea-assam",
    name="Assam",
    description="Malty and strong. Three minutes, with milk if you like.",
    category="tea",
    price=types_pb2.Money(currency="EUR", minor=1290),
    version=2,
)


class OneArticle(CatalogServiceServicer):
    """Answers with the article, whatever is asked for."""

    async def GetArticle(self, request: catalog_pb2.GetArticleRequest, context: Any) -> catalog_pb2.GetArticleResponse:
        """Answer at once."""
        return catalog_pb2.GetArticleResponse(article=ARTICLE)


async def main() -> None:
    """Serve until told."""
    server = grpc.aio.server()
    add_CatalogServiceServicer_to_server(OneArticle(), server)  # type: ignore[abstract] # UNIMPLEMENTED
    await serve_until_told("catalog", server)


if __name__ == "__main__":
    asyncio.run(main())
