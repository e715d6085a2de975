"""Copies of articles: fed by catalog's events, in any order and however often, and by prices set the old way."""

import itertools
from typing import Any

import grpc
import pytest
from amends_testkit.service import refusal_of
from shop_orders import articles
from shop_orders.domain import ArticleCopy, Money

from shop.orders.v1 import orders_pb2 as pb
from shop.types.v1 import types_pb2

PRICED = ArticleCopy("tea", "Darjeeling", Money("EUR", 500), withdrawn=False)


async def do(database, change, *arguments, **named) -> Any:
    async with database.transaction() as transaction:
        return await change(transaction, *arguments, **named)


STEPS = (
    (articles.copy_article, ("tea", 1), {"name": "Assam", "withdrawn": False}),
    (articles.set_price, ("tea", Money("EUR", 450), 2), {}),
    (articles.copy_article, ("tea", 3), {"name": "Darjeeling", "withdrawn": False}),
    (articles.set_price, ("tea", Money("EUR", 500), 4), {}),
)


async def test_whatever_order_events_come_in_the_latest_of_each_stays(database):
    for order in itertools.permutations(STEPS):
        await database.pool.execute("TRUNCATE article, price")
        for change, arguments, named in (*order, order[0]):
            await do(database, change, *arguments, **named)
        assert await do(database, articles.articles_of, []) == [PRICED]


async def test_a_withdrawn_article_cannot_be_ordered_until_it_is_sold_again(database):
    await do(database, articles.set_price, "tea", Money("EUR", 450), 1)
    await do(database, articles.copy_article, "tea", 2, name=None, withdrawn=True)
    assert await do(database, articles.prices, ["tea"]) == {}
    (copy,) = await do(database, articles.articles_of, ["tea"])
    assert copy == ArticleCopy("tea", "", Money("EUR", 450), withdrawn=True)
    await do(database, articles.copy_article, "tea", 3, name="Assam", withdrawn=False)
    assert await do(database, articles.prices, ["tea"]) == {"tea": Money("EUR", 450)}


async def test_a_price_of_before_catalog_owned_them_gives_way_to_the_first_that_it_tells(database):
    await do(database, articles.set_price, "tea", Money("EUR", 400), None)
    await do(database, articles.set_price, "tea", Money("EUR", 450), 1)
    assert await do(database, articles.prices, ["tea"]) == {"tea": Money("EUR", 450)}


async def test_copies_are_read_by_article_or_all(service):
    for sku in ("tea", "cup"):
        await service.SetPrice(pb.SetPriceRequest(sku=sku, price=types_pb2.Money(currency="EUR", minor=450)))
    every = (await service.ListArticles(pb.ListArticlesRequest())).articles
    assert [one.sku for one in every] == ["cup", "tea"]
    (one,) = (await service.ListArticles(pb.ListArticlesRequest(skus=["tea", "none"]))).articles
    assert (one.sku, one.price.minor, one.withdrawn) == ("tea", 450, False)


async def test_too_many_articles_at_once_are_refused(service):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.ListArticles(pb.ListArticlesRequest(skus=[f"a{number}" for number in range(101)]))
    assert refusal_of(caught.value)[0] == "INVALID_ARGUMENT"
