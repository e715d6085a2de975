"""A catalogue that also finds articles, in one process and one database: what search is compared with.

It is the catalog service with one more servicer, which looks for the query in names and descriptions (ILIKE) and counts
as search does. Started by `searching`.
"""

from functools import partial
from typing import Any

from amends_chassis.database import Database
from amends_chassis.service import Runtime, run
from shop_catalog.__main__ import assemble
from shop_catalog.settings import Settings

from shop.search.v1 import search_pb2 as pb
from shop.search.v1.search_pb2_grpc import SearchServiceServicer, add_SearchServiceServicer_to_server
from shop.types.v1 import types_pb2

_FOUND = """
WITH found AS MATERIALIZED (
    SELECT sku, name, category, currency, minor FROM article
    WHERE NOT withdrawn AND (name ILIKE $1 OR description ILIKE $1)
)
SELECT sku, name, category, currency, minor, count(*) OVER () AS total,
    (SELECT count(DISTINCT category) FROM found) AS categories
FROM found ORDER BY name, sku LIMIT 20
"""


class Finds(SearchServiceServicer):
    """Looks for a query in the tables of the catalogue."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def Search(self, request: pb.SearchRequest, context: Any) -> pb.SearchResponse:
        """Find articles that contain the query."""
        rows = await self._database.pool.fetch(_FOUND, f"%{request.query}%")
        return pb.SearchResponse(
            hits=[
                pb.Hit(
                    sku=row["sku"],
                    name=row["name"],
                    category=row["category"],
                    price=types_pb2.Money(currency=row["currency"], minor=row["minor"]),
                )
                for row in rows
            ],
            total=rows[0]["total"] if rows else 0,
        )

    async def Suggest(self, request: pb.SuggestRequest, context: Any) -> pb.SuggestResponse:
        """Find names that begin so."""
        query = "SELECT name, sku FROM article WHERE NOT withdrawn AND name ILIKE $1 ORDER BY name LIMIT 8"
        rows = await self._database.pool.fetch(query, f"{request.prefix}%")
        return pb.SuggestResponse(suggestions=[pb.Suggestion(text=row["name"], sku=row["sku"]) for row in rows])


async def together(settings: Settings, runtime: Runtime) -> None:
    """Put the catalogue together, and the servicer that searches beside it."""
    await assemble(settings, runtime)
    runtime.add(add_SearchServiceServicer_to_server, Finds(runtime.database), "shop.search.v1.SearchService")


if __name__ == "__main__":
    run(settings := Settings(), partial(together, settings))
