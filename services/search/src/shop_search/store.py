"""Reads of the views, which show the index that serves. Every function is one query. `api.py` calls it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from amends_chassis.database import Executes

from shop_search.domain import Filter, Match, Meant

# Words that begin with a word are between it and its last continuation, in the order of bytes. Two letters in the wrong
# order are the commonest mistake, and in a short word leave few trigrams as they were, so that is looked for first.
_MEANT = """
WITH asked AS (
    SELECT number, word, ts_lexize('english_stem', word) AS stems
    FROM (SELECT number, unaccent(asked) AS word FROM unnest($1::text[]) WITH ORDINALITY AS a (asked, number)) AS plain
), known AS (
    SELECT number, asked.word, asked.stems = '{}' AS stop,
        ARRAY(SELECT w.word FROM word AS w WHERE w.stem = asked.stems[1] AND w.word <> asked.word
              ORDER BY w.word LIMIT 20) AS same,
        EXISTS (SELECT FROM word AS w WHERE w.word >= asked.word AND w.word < asked.word || chr(1114111)) AS begins,
        ARRAY(SELECT left(asked.word, i - 1) || substr(asked.word, i + 1, 1) || substr(asked.word, i, 1)
              || substr(asked.word, i + 2) FROM generate_series(1, length(asked.word) - 1) AS i) AS swapped
    FROM asked
)
SELECT word, stop, same, CASE WHEN stop OR begins OR same <> '{}' THEN '{}' ELSE
    ARRAY(SELECT w.word FROM word AS w WHERE w.word % known.word OR w.word = ANY (known.swapped)
          ORDER BY w.word = ANY (known.swapped) DESC, similarity(w.word, known.word) DESC, w.word LIMIT 3) END AS alike
FROM known ORDER BY number
"""

_HITS = """
WITH asked AS (
    SELECT to_tsquery('public.words', $1) AS wide, to_tsquery('public.words', $2) AS narrow
), found AS MATERIALIZED (
    SELECT a.sku, a.name, a.category, a.currency, a.minor, coalesce(s.available, 0) > 0 AS in_stock,
        CASE WHEN $1 = '' THEN 0 ELSE
            -(ts_rank(a.document, asked.wide) + 2 * ts_rank(a.document, asked.narrow))::float8 END AS place
    FROM asked CROSS JOIN article AS a LEFT JOIN stock AS s ON s.sku = a.sku
    WHERE a.name IS NOT NULL AND ($1 = '' OR a.document @@ asked.wide)
        AND ($3::text IS NULL OR (a.currency = $3 AND a.minor BETWEEN $4 AND $5))
), shown AS (
    SELECT * FROM found WHERE ($6::text IS NULL OR category = $6) AND (in_stock OR NOT $7)
)
SELECT 'hit' AS kind, page.*, NULL::bigint AS articles FROM (
    SELECT * FROM shown WHERE $8::float8 IS NULL OR (place, name, sku) > ($8, $9, $10)
    ORDER BY place, name, sku LIMIT $11
) AS page
UNION ALL SELECT 'total', NULL, NULL, NULL, NULL, NULL, NULL, NULL, count(*) FROM shown
UNION ALL (SELECT 'category', NULL, NULL, category, NULL, NULL, NULL, NULL, count(*) FROM found
    WHERE in_stock OR NOT $7 GROUP BY category ORDER BY count(*) DESC, category LIMIT 100)
UNION ALL SELECT 'stock', NULL, NULL, NULL, NULL, NULL, in_stock, NULL, count(*) FROM found
    WHERE $6::text IS NULL OR category = $6 GROUP BY in_stock
"""
_SUGGESTED = """
WITH asked AS (
    SELECT to_tsquery('public.words', $1) AS wide, to_tsquery('public.words', $2) AS narrow
)
SELECT a.name, min(a.sku) AS sku FROM asked CROSS JOIN article AS a
WHERE a.name IS NOT NULL AND a.document @@ asked.wide
GROUP BY a.name ORDER BY max(ts_rank(a.document, asked.narrow)) DESC, length(a.name), a.name LIMIT $3
"""


class FoundArticle(NamedTuple):
    """An article that was found, and its place among others: the smallest first, then by name."""

    sku: str
    name: str
    category: str
    currency: str | None
    minor: int | None
    in_stock: bool
    place: float


class Found(NamedTuple):
    """A page of what was found, and how many there are on all pages."""

    articles: list[FoundArticle]
    total: int
    categories: list[tuple[str, int]]
    stock: dict[bool, int]
    """How many articles are in stock, and how many are not."""


PageKey = tuple[float, str, str]
"""Place, name and sku of the last article of a page."""


async def meant(connection: Executes, words: Sequence[str]) -> list[Meant]:
    """Return what the words of a query may stand for in the index."""
    if not words:
        return []
    rows = await connection.fetch(_MEANT, list(words))
    return [Meant(row["word"], tuple(row["same"]), tuple(row["alike"]), bool(row["stop"])) for row in rows]


async def search(connection: Executes, match: Match, only: Filter, after: PageKey | None, limit: int) -> Found:
    """Find up to `limit` articles behind `after`, the best first, and count all that there are."""
    rows = await connection.fetch(
        _HITS,
        match.wide,
        match.narrow,
        only.currency,
        only.minimum,
        only.maximum,
        only.category,
        only.in_stock,
        *(after or (None, None, None)),
        limit,
    )
    counted: dict[str, list[Any]] = {"hit": [], "total": [], "category": [], "stock": []}
    for row in rows:
        counted[row["kind"]].append(row)
    return Found(
        [FoundArticle(*(row[field] for field in FoundArticle._fields)) for row in counted["hit"]],
        counted["total"][0]["articles"],
        [(row["category"], row["articles"]) for row in counted["category"]],
        {row["in_stock"]: row["articles"] for row in counted["stock"]},
    )


async def suggest(connection: Executes, match: Match, limit: int) -> list[tuple[str, str]]:
    """Return up to `limit` names of articles, each with one of those that have it."""
    rows = await connection.fetch(_SUGGESTED, match.wide, match.narrow, limit)
    return [(row["name"], row["sku"]) for row in rows]
