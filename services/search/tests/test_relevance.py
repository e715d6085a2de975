"""What people type, and what they find: on a real Postgres, with the words of the shop."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shop_search import domain, store
from shop_search.domain import MAX_QUERY, Filter, Match, Meant

from .world import EVERYTHING, SOLD, look, skus

HOSTILE = (
    "'&|!",
    "\x00",
    "te\x00a",
    "' OR 1=1 --",
    "tea:*A & !(",
    "\\'",
    '"; DROP TABLE article; --',
    "%_%",
    "((((",
    "<->",
    "'" * 999,
    "a" * 1_000,
    "tea " * 250,
    "\u202e\u0301\u200d",
    "🍵",
    "½ ﬁ ǅ",
)


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("assam", "tea-assam"),
        ("ASSAM", "tea-assam"),
        ("asam", "tea-assam"),
        ("assm", "tea-assam"),
        ("darjeling", "tea-darjeeling"),
        ("darjeeli", "tea-darjeeling"),
        ("darj", "tea-darjeeling"),
        ("flushes", "tea-darjeeling"),
        ("berries", "tea-berry"),
        ("mate", "tea-mate"),
        ("MATÉ", "tea-mate"),
        ("mate\u0301", "tea-mate"),
        ("cafe creme", "coffee-cafe-creme"),
        ("creme café", "coffee-cafe-creme"),
        ("smorrebrod", "mug-smorrebrod"),
        ("zurich", "coffee-cafe-creme"),
        ("earl-grey", "tea-earl-grey"),
        ("the earl of grey", "tea-earl-grey"),
        ("assam bgas", "tea-assam-bags"),
        ("mgu", "mug-blue"),
        ("black bergamot", "tea-earl-grey"),
        ("mugs blue", "mug-blue"),
        ("300 ml", "mug-blue"),
    ],
)
async def test_what_is_meant_comes_first(sold, query, first):
    assert (await skus(sold.pool, query))[0] == first


async def test_a_name_counts_more_than_a_category_and_that_more_than_a_description(sold):
    assert await skus(sold.pool, "sencha") == ["tea-sencha", "teapot-iron"]
    found = await skus(sold.pool, "coffee")
    assert found == ["coffee-cafe-creme", "coffee-ethiopia", "mug-blue"]


async def test_a_whole_word_comes_before_the_beginning_of_another(sold):
    found = await skus(sold.pool, "tea")
    assert found.index("towel-tea") < found.index("teapot-iron") < found.index("mug-blue")


async def test_all_words_must_be_found(sold):
    assert await skus(sold.pool, "green mug") == []
    assert await skus(sold.pool, "xylophone") == []


async def test_without_words_everything_is_found_by_name(sold):
    by_name = [sku for _, sku in sorted((name, sku) for sku, name, *_ in SOLD)]
    for query in ("", "  ", "!?", "\x00"):
        assert await skus(sold.pool, query) == by_name


async def test_what_was_corrected_is_said_and_nothing_else(sold):
    async def corrected(query):
        return domain.match(await store.meant(sold.pool, domain.query_words(query))).corrected

    assert await corrected("asam in bags") == "assam bags"
    assert await corrected("assam") == ""
    assert await corrected("teas") == ""
    assert await corrected("xylophone") == ""


@pytest.mark.parametrize("query", HOSTILE)
async def test_no_query_is_an_error(sold, query):
    found = await look(sold.pool, query, limit=99)
    assert found.total == len(found.articles) == sum(found.stock.values())
    match = domain.match(await store.meant(sold.pool, domain.query_words(query)), weights="A")
    if match.wide:
        await store.suggest(sold.pool, match, 5)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_no_text_is_cut_into_words_that_postgres_would_read_as_syntax(text):
    for word in domain.words(text):
        assert word.isalnum()
        assert len(word) <= domain.MAX_WORD


async def test_words_are_looked_for_as_they_are_whatever_they_contain(sold):
    odd = Meant("it's", ("a\\b",), ("c:*d",), stop=False)
    match = domain.match([odd])
    assert (await store.search(sold.pool, match, EVERYTHING, None, 5)).total == 0


def test_a_query_is_looked_at_up_to_a_length():
    assert domain.query_words("tea " * 500) == ["tea"] * domain.MAX_WORDS
    assert domain.query_words("-" * MAX_QUERY + "tea") == []
    assert domain.match([]) == Match("", "", "")


async def test_words_that_say_nothing_are_left_out_unless_there_are_no_others(sold):
    assert await skus(sold.pool, "the") == ["tea-assam", "tea-berry"]
    assert await skus(sold.pool, "the black tea of assam") == ["tea-assam", "tea-assam-bags"]


async def test_facets_count_as_if_their_own_filter_had_not_been_asked_for(sold):
    found = await look(sold.pool, "tea", Filter("tea", None, 0, 2**63 - 1, True))
    assert {article.category for article in found.articles} == {"tea"}
    assert all(article.in_stock for article in found.articles)
    assert found.total == len(found.articles) == 6
    assert found.categories == [("tea", 6), ("mugs", 3)]
    assert found.stock == {True: 6, False: 1}


async def test_prices_are_bounds_of_one_currency(sold):
    found = await look(sold.pool, "", Filter(None, "EUR", 500, 700, False))
    assert [(article.sku, article.minor) for article in found.articles] == [
        ("tea-assam", 690),
        ("tea-berry", 550),
        ("tea-mate", 590),
    ]
    assert (await look(sold.pool, "", Filter(None, "CHF", 0, 2**63 - 1, False))).total == 0
