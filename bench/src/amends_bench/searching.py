"""What taking search out of the catalogue gains, and what a second replica of it adds.

Customers search four times as often as they open an article. Before, one process with one database does both; after,
search has a process and an index of its own. The second comparison has no catalogue: only search is scaled.
"""

import asyncio
import itertools
import random
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from amends_chassis.database import Database
from amends_chassis.migrations import migrate
from amends_chassis.projections import versions
from amends_embedded import Child, Children, Postgres
from rich.progress import Progress
from shop_search.facts import PriceFact, StockFact, TextFact
from shop_search.index import LAYOUT, ArticleIndex

from amends_bench.generator import LoadGenerator
from amends_bench.suite import Comparison, Round, SuiteOptions, alternate
from amends_bench.world import used

ARTICLES, QUICK_ARTICLES = 20_000, 1_000
SEARCHES, READS = 16, 4
"""Calls in flight: four fifths of them search."""
WORDS = ("assam", "darjeeling", "sencha", "earl", "grey", "yunnan", "oolong", "mint", "rooibos", "bergamot", "jasmine")
KINDS = ("tea", "bags", "tin", "gift", "mug", "pot", "sample")
_NOBODY = "127.0.0.1:1"


async def search_apart(options: SuiteOptions, progress: Progress) -> list[Comparison]:
    """Measure reads and searches, with search in the catalogue and apart from it, and with two replicas of it."""
    apart, inside = "search in a process of its own", "search in the catalogue, by ILIKE"
    reads = Comparison("search-apart reads", f"articles read beside {apart}", inside, "per second", None)
    slowest = Comparison("search-apart p99", f"a read beside {apart}", inside, "seconds", None, key="p99")
    found = Comparison("search-apart searches", apart, inside, "per second", None, key="searches")
    replicas = Comparison("search-apart replicas", "two replicas of search", "one replica", "per second", None)
    processor = Comparison(
        "search-apart processor", replicas.subject, replicas.peer, "per processor second", None, key="per_processor"
    )
    async with _world(QUICK_ARTICLES if options.quick else ARTICLES) as world:
        rounds: list[tuple[Comparison, Round, Round]] = [
            (reads, world.customers(world.catalog, world.search[:1], options), world.together(options)),
            (replicas, world.searched(world.search, options), world.searched(world.search[:1], options)),
        ]
        for comparison, subject, peer in rounds:
            await subject()
            await peer()
            await alternate(comparison, subject, peer, options.rounds, progress)
    for copy, source in ((slowest, reads), (found, reads), (processor, replicas)):
        copy.subject_rounds, copy.peer_rounds = source.subject_rounds, source.peer_rounds
    return [reads, slowest, found, replicas, processor]


@dataclass(slots=True)
class _Searched:
    postgres: Postgres
    reading: LoadGenerator
    searching: LoadGenerator
    catalog: Child
    both: Child
    search: Sequence[Child]
    addresses: Mapping[str, str]

    def customers(self, catalog: Child, search: Sequence[Child], options: SuiteOptions) -> Round:
        """Return a round in which articles are read and searched at once."""
        targets = [self.addresses[child.name] for child in search]

        async def one() -> Mapping[str, Any]:
            reads, searches = await asyncio.gather(
                self.reading.round("article", [self.addresses[catalog.name]], READS, options.duration),
                self.searching.round("search", targets, SEARCHES, options.duration),
            )
            _check(reads, searches)
            return reads | {"searches": searches["rate"], "search_p99": searches["p99"]}

        return one

    def together(self, options: SuiteOptions) -> Round:
        """Return the round in which one process does both."""
        return self.customers(self.both, [self.both], options)

    def searched(self, search: Sequence[Child], options: SuiteOptions) -> Round:
        """Return a round in which only search is asked."""
        targets = [self.addresses[child.name] for child in search]
        processes, database = [child.pid for child in search], [self.postgres.pid]

        async def one() -> Mapping[str, Any]:
            before, before_database = used(processes), used(database)
            searches = await self.searching.round("search", targets, 2 * SEARCHES, options.duration)
            _check(searches)
            replicas = (used(processes) - before) / searches["done"]
            postgres = (used(database) - before_database) / searches["done"]
            seconds = {"replicas_seconds": replicas, "postgres_seconds": postgres}
            return searches | seconds | {"per_processor": 1 / (replicas + postgres)}

        return one


def _check(*rounds: Mapping[str, Any]) -> None:
    for one in rounds:
        if one["failed"]:
            raise RuntimeError(f"{one['failed']} calls failed: {one['failures']}")


@asynccontextmanager
async def _world(articles: int) -> AsyncIterator[_Searched]:
    with TemporaryDirectory(prefix="amends-bench-") as scratch:
        folder = Path(scratch)
        async with (
            await Postgres.start(folder / "postgres") as postgres,
            Children(grace=timedelta(seconds=5)) as children,
            LoadGenerator() as reading,
            LoadGenerator() as searching,
        ):
            catalog_url = await postgres.create("catalog", "catalog", connections=40)
            search_url = await postgres.create("search", "search", connections=40)
            await _fill(catalog_url, search_url, articles)
            search_needs = {"AMENDS_CATALOG_TARGET": _NOBODY, "AMENDS_INVENTORY_TARGET": _NOBODY}
            programs = {
                "catalog": ("shop_catalog", catalog_url, {}),
                "both": ("amends_bench.together", catalog_url, {}),
                "search-1": ("shop_search", search_url, search_needs),
                "search-2": ("shop_search", search_url, search_needs),
            }
            started, addresses = {}, {}
            for name, (module, url, more) in programs.items():
                child = Child.start(
                    name,
                    [sys.executable, "-m", module],
                    log=folder / f"{name}.log",
                    report=folder / f"{name}.json",
                    environment={"AMENDS_DATABASE_URL": url, "AMENDS_LOG_LEVEL": "warning", **more},
                )
                children.add(child)
                started[name] = child
                addresses[name] = str((await child.ready(timedelta(seconds=60)))["grpc"])
            search = (started["search-1"], started["search-2"])
            yield _Searched(postgres, reading, searching, started["catalog"], started["both"], search, addresses)


async def _fill(catalog_url: str, search_url: str, articles: int) -> None:
    """Write the same articles into the catalogue and into an index that serves."""
    catalog, search = Database(catalog_url), Database(search_url)
    texts = list(itertools.starmap(_text, enumerate(_names(articles))))
    try:
        await catalog.connect()
        await search.connect()
        await migrate(catalog, "shop_catalog.migrations")
        await migrate(search, "shop_search.migrations")
        await catalog.pool.executemany(
            "INSERT INTO article (sku, name, description, category, currency, minor)"
            " VALUES ($1, $2, $3, $4, 'EUR', 450)",
            [(one.sku, one.name, one.description, one.category) for one in texts],
        )
        async with search.transaction() as transaction:
            made = await versions.make(transaction, LAYOUT)
            index = ArticleIndex(made.version)
            await index.take(transaction, texts)
            await index.take(transaction, [PriceFact(one.sku, 1, "EUR", 450) for one in texts])
            await index.take(transaction, [StockFact(one.sku, 1, 5) for one in texts])
            await versions.switch(transaction, made.version)
        for database in (catalog, search):
            await database.pool.execute("ANALYZE")
    finally:
        await catalog.close()
        await search.close()


def _names(articles: int) -> list[str]:
    chance = random.Random(1)
    return [f"{' '.join(chance.sample(WORDS, 2))} {chance.choice(KINDS)} {number}" for number in range(articles)]


def _text(number: int, name: str) -> TextFact:
    description = f"{name} in lot {number}, packed by hand and kept in the dark. " * 3
    return TextFact(f"a-{number}", 1, name, description, name.split()[2])
