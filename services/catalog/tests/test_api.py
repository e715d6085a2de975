"""The service as its callers see it: over gRPC, with a real database and a real cache."""

import asyncio

import grpc
import pytest
from amends_testkit.service import refusal_of, refusals_of
from shop_catalog import api, domain

from shop.catalog.events.v1.catalog_pb2 import ArticleChanged, ArticlePriced, ArticleWithdrawn
from shop.catalog.v1 import catalog_pb2 as pb
from shop.types.v1.types_pb2 import Money


def article(sku="tea-1", name="Assam", category="tea", description="Malty."):
    return pb.PutArticleRequest(sku=sku, name=name, category=category, description=description)


def priced(minor, sku="tea-1"):
    return pb.SetPriceRequest(sku=sku, price=Money(currency="EUR", minor=minor))


async def read(service, sku="tea-1"):
    return (await service.GetArticle(pb.GetArticleRequest(sku=sku))).article


async def events(database):
    rows = await database.pool.fetch("SELECT key, version, type FROM outbox ORDER BY seq")
    return [(row["key"], row["version"], row["type"].rpartition(".")[2]) for row in rows]


def test_every_refusal_of_the_domain_has_an_answer():
    assert set(api.ERRORS) == refusals_of(domain, pages=True)


async def test_an_article_is_written_priced_changed_and_withdrawn_and_others_hear_of_each(service, database):
    written = (await service.PutArticle(article())).article
    assert (written.version, written.HasField("price")) == (1, False)
    assert (await service.SetPrice(priced(450))).version == 2
    assert await read(service) == pb.Article(
        sku="tea-1",
        name="Assam",
        description="Malty.",
        category="tea",
        price=Money(currency="EUR", minor=450),
        version=2,
    )
    await service.PutArticle(article(name="Assam Bari"))
    await service.WithdrawArticle(pb.WithdrawArticleRequest(sku="tea-1"))
    found = await read(service)
    assert (found.name, found.withdrawn, found.version) == ("Assam Bari", True, 4)
    assert await events(database) == [
        ("tea-1", 1, "ArticleChanged"),
        ("tea-1", 2, "ArticlePriced"),
        ("tea-1", 3, "ArticleChanged"),
        ("tea-1", 4, "ArticleWithdrawn"),
    ]
    payloads = [row["payload"] for row in await database.pool.fetch("SELECT payload FROM outbox ORDER BY seq")]
    assert ArticleChanged.FromString(payloads[0]).description == "Malty."
    assert ArticlePriced.FromString(payloads[1]).price.minor == 450
    assert ArticleWithdrawn.FromString(payloads[3]).sku == "tea-1"


async def test_the_same_again_changes_nothing_and_tells_nobody(service, database):
    for _ in range(2):
        await service.PutArticle(article())
        assert (await service.SetPrice(priced(450))).version == 2
    for _ in range(2):
        await service.WithdrawArticle(pb.WithdrawArticleRequest(sku="tea-1"))
    assert len(await events(database)) == 3


async def test_an_article_that_was_withdrawn_can_be_sold_again(service):
    await service.PutArticle(article())
    await service.WithdrawArticle(pb.WithdrawArticleRequest(sku="tea-1"))
    await service.PutArticle(article())
    assert not (await read(service)).withdrawn
    assert [one.sku for one in (await service.ListArticles(pb.ListArticlesRequest())).articles] == ["tea-1"]


async def test_readers_of_the_cache_see_a_change_at_once(service, database):
    await service.PutArticle(article())
    assert (await read(service)).name == "Assam"
    await database.pool.execute("UPDATE article SET name = 'changed behind the back of the service'")
    assert (await read(service)).name == "Assam", "read from the cache"
    await service.SetPrice(priced(450))
    assert (await read(service)).price.minor == 450


async def test_an_unknown_article_is_known_as_soon_as_it_is_written(service):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read(service)
    assert refusal_of(caught.value) == ("NOT_FOUND", "ARTICLE_UNKNOWN")
    await service.PutArticle(article())
    assert (await read(service)).name == "Assam"


async def test_changes_at_once_leave_the_last_one_in_the_cache_and_each_price_in_the_history(service, database):
    await service.PutArticle(article())
    await asyncio.gather(*(service.SetPrice(priced(minor)) for minor in range(100, 120)))
    row = await database.pool.fetchrow("SELECT version, minor FROM article")
    found = await read(service)
    assert (found.version, found.price.minor) == (row["version"], row["minor"]) == (21, found.price.minor)
    history = (await service.ListPrices(pb.ListPricesRequest(sku="tea-1"))).prices
    assert sorted(one.price.minor for one in history) == list(range(100, 120))
    assert history[0].price.minor == found.price.minor


async def test_articles_are_listed_by_name_page_by_page_and_by_category(service):
    for number, name in enumerate(["Darjeeling", "Assam", "Assam", "Ceylon", "Keemun"]):
        await service.PutArticle(article(f"tea-{number}", name))
    await service.PutArticle(article("mug-1", "Blue mug", "mugs"))
    names, token = [], ""
    while True:
        page = await service.ListArticles(pb.ListArticlesRequest(category="tea", page_size=2, page_token=token))
        names += [(one.name, one.sku) for one in page.articles]
        if not (token := page.next_page_token):
            break
    assert names == sorted(names)
    assert len(names) == 5
    assert len((await service.ListArticles(pb.ListArticlesRequest())).articles) == 6
    categories = (await service.ListCategories(pb.ListCategoriesRequest())).categories
    assert [(one.name, one.articles) for one in categories] == [("mugs", 1), ("tea", 5)]


async def test_an_article_has_a_picture(service):
    await service.PutArticle(article(name="Tea & Co"))
    assert "Tea &amp; Co" in (await service.GetPicture(pb.GetPictureRequest(sku="tea-1"))).svg


@pytest.mark.parametrize(
    ("method", "request_", "refusal"),
    [
        ("PutArticle", article(sku=""), ("INVALID_ARGUMENT", "IDENTIFIER_INVALID")),
        ("PutArticle", article(name=""), ("INVALID_ARGUMENT", "ARTICLE_INVALID")),
        ("SetPrice", priced(0), ("INVALID_ARGUMENT", "PRICE_INVALID")),
        ("SetPrice", priced(5), ("NOT_FOUND", "ARTICLE_UNKNOWN")),
        ("WithdrawArticle", pb.WithdrawArticleRequest(sku="tea-1"), ("NOT_FOUND", "ARTICLE_UNKNOWN")),
        ("GetArticle", pb.GetArticleRequest(sku="tea 1"), ("INVALID_ARGUMENT", "IDENTIFIER_INVALID")),
        ("ListPrices", pb.ListPricesRequest(sku="tea-1"), ("NOT_FOUND", "ARTICLE_UNKNOWN")),
        ("GetPicture", pb.GetPictureRequest(sku="tea-1"), ("NOT_FOUND", "ARTICLE_UNKNOWN")),
        ("ListArticles", pb.ListArticlesRequest(page_size=101), ("INVALID_ARGUMENT", "PAGE_INVALID")),
        ("ListArticles", pb.ListArticlesRequest(page_token="?"), ("INVALID_ARGUMENT", "PAGE_INVALID")),
        ("ListArticles", pb.ListArticlesRequest(category="No!"), ("INVALID_ARGUMENT", "ARTICLE_INVALID")),
    ],
)
async def test_what_is_wrong_is_refused_with_its_reason(service, method, request_, refusal):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(service, method)(request_)
    assert refusal_of(caught.value) == refusal


async def test_an_event_of_an_article_rides_in_the_transaction_of_its_change(service, database):
    await service.PutArticle(article())
    with pytest.raises(grpc.aio.AioRpcError):
        await service.SetPrice(priced(5, "other"))
    assert await events(database) == [("tea-1", 1, "ArticleChanged")]
