"""Facts in, rows out, on a real Postgres: whatever comes twice, late, out of order or from two sides at once."""

import asyncio
import random

from amends_chassis.projections import versions
from shop_search.index import LAYOUT, ArticleIndex

from .world import changed, priced, rows, shop, skus, stocked, withdrawn


async def take(database, index, told, size=7):
    for first in range(0, len(told), size):
        async with database.transaction() as transaction:
            await index.take(transaction, [one.fact for one in told[first : first + size]])


async def another(database):
    """A second index beside the first."""
    async with database.pool.acquire() as connection:
        return ArticleIndex((await versions.make(connection, LAYOUT)).version)


def lives():
    """Articles that change, are withdrawn, and come back."""
    return [
        *shop(),
        changed("tea-assam", 3, "Assam of the year"),
        priced("tea-assam", 4, 700),
        priced("tea-assam", 5, 650),
        stocked("tea-assam", 2, 0),
        stocked("tea-assam", 3, 4),
        withdrawn("tea-mate", 3),
        withdrawn("tea-sencha", 3),
        changed("tea-sencha", 4, "Sencha, again"),
        stocked("nobody-described-it", 1, 3),
        priced("nobody-described-it", 1, 100),
    ]


async def test_every_sequence_with_duplicates_ends_in_the_same_rows(database, index):
    await take(database, index, lives())
    wanted = await rows(database.pool, index.schema)
    for seed in range(5):
        chance = random.Random(seed)
        told = lives() * 2
        chance.shuffle(told)
        again = await another(database)
        await take(database, again, told, size=chance.choice([1, 5, 500]))
        assert await rows(database.pool, again.schema) == wanted


async def test_what_is_known_writes_no_row(database, index):
    await take(database, index, lives())
    seen = "SELECT ctid, xmin, * FROM i1.{} ORDER BY sku"
    before = [await database.pool.fetch(seen.format(table)) for table in ("article", "stock")]
    await take(database, index, lives())
    assert [await database.pool.fetch(seen.format(table)) for table in ("article", "stock")] == before


async def test_an_article_that_is_withdrawn_is_not_found_and_leaves_its_version_alone(database, index):
    await take(database, index, [changed("tea-mate", 1, "Mate", description="Roasted leaves.")])
    assert await skus(database.pool, "leaves") == ["tea-mate"]
    await take(database, index, [withdrawn("tea-mate", 2), changed("tea-mate", 1, "Mate")])
    assert await skus(database.pool, "") == await skus(database.pool, "leaves") == []
    left = await database.pool.fetchrow("SELECT * FROM article")
    assert (left["text_version"], left["name"], left["document"]) == (2, None, "")
    await take(database, index, [changed("tea-mate", 3, "Mate")])
    assert await skus(database.pool, "mate") == ["tea-mate"]


async def test_who_was_withdrawn_before_it_was_told_of_is_not_found(database, index):
    await take(database, index, [withdrawn("tea-mate", 2), priced("tea-mate", 1, 5), changed("tea-mate", 1, "Mate")])
    assert await skus(database.pool, "") == []


async def test_an_article_without_a_price_or_stock_is_found_and_says_so(database, index):
    await take(database, index, [changed("tea-mate", 1, "Mate")])
    [found] = await database.pool.fetch("SELECT currency, minor FROM article")
    assert tuple(found) == (None, None)
    assert await skus(database.pool, "mate") == ["tea-mate"]


async def test_writers_of_the_same_words_do_not_wait_for_each_other_in_a_circle(database, index):
    """Partitions are read at once, and their articles share words."""
    chance = random.Random(7)

    def some(writer):
        words = [f"word{number}" for number in range(40)]
        for number in range(30):
            chance.shuffle(words)
            yield changed(f"{writer}-{number}", 1, " ".join(words[:20]))

    await asyncio.gather(*(take(database, index, list(some(writer)), size=5) for writer in range(4)))
    assert await database.pool.fetchval("SELECT count(*) FROM i1.article") == 120
    assert await database.pool.fetchval("SELECT count(*) FROM i1.word WHERE word LIKE 'word%'") == 40
