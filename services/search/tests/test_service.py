"""The service as its process runs it, over a real Postgres and a real log."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, timedelta
from functools import partial
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
from amends_chassis.domain import IdentifierInvalidError
from amends_chassis.service import Runtime, running
from amends_embedded import Nats
from amends_events import open_broker
from amends_testkit.log import PrefixedBroker
from amends_testkit.service import refusal_of, refusals_of
from amends_testkit.waiting import eventually
from pydantic import SecretStr
from shop_search import domain
from shop_search.api import ERRORS
from shop_search.assemble import assemble
from shop_search.settings import Settings

from shop.search.v1 import search_pb2 as pb
from shop.search.v1.search_pb2_grpc import SearchServiceStub

from .test_relevance import HOSTILE
from .world import SOLD, TOPICS, changed, shop, stocked, withdrawn

NOBODY = "127.0.0.1:1"
"""Neither catalog nor inventory can be reached: nothing here needs them."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def log(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Nats, PrefixedBroker]]:
    """A server whose topics have the names of the contracts."""
    async with await Nats.start(tmp_path_factory.mktemp("search")) as server:
        broker = PrefixedBroker(open_broker(server.url), TOPICS)
        await broker.make_topics()
        await broker.tell(shop())
        yield server, broker
        await broker.broker.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def replicas(postgres: Any, log: tuple[Nats, PrefixedBroker]) -> AsyncIterator[list[tuple[Any, Runtime]]]:
    """Two replicas over one database, with the first index."""
    url = await postgres.create("search_service", "search_service")
    settings = Settings(
        database_url=SecretStr(url),
        broker=SecretStr(log[0].url),
        catalog_target=NOBODY,
        inventory_target=NOBODY,
    )
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(2):
            runtime = await stack.enter_async_context(running(settings, partial(assemble, settings)))
            await eventually(lambda r=runtime: r.health.ready, what="an index", timeout=timedelta(seconds=60))
            found.append((SearchServiceStub(runtime.channel(runtime.address)), runtime))
        yield found
    await postgres.drop("search_service", "search_service")


@pytest.fixture
def stub(replicas: list[tuple[Any, Runtime]]) -> Any:
    return replicas[0][0]


async def pages(stub: Any, request: pb.SearchRequest) -> list[str]:
    found: list[str] = []
    while True:
        answer = await stub.Search(request)
        found += [hit.sku for hit in answer.hits]
        request.page_token = answer.next_page_token
        if not answer.next_page_token:
            return found


async def test_a_hit_has_what_a_list_of_articles_shows(stub):
    answer = await stub.Search(pb.SearchRequest(query="assam bags"))
    [hit] = answer.hits
    assert (hit.sku, hit.name, hit.category, hit.in_stock) == ("tea-assam-bags", "Assam in bags", "tea", False)
    assert (hit.price.currency, hit.price.minor) == ("EUR", 490)
    assert (answer.total, answer.in_stock, answer.out_of_stock) == (1, 0, 1)
    assert answer.as_of.ToDatetime(UTC).year >= 2026


@pytest.mark.parametrize("query", ["", "tea", "asam"])
async def test_pages_have_everything_once_and_in_order(stub, query):
    whole = await pages(stub, pb.SearchRequest(query=query, page_size=100))
    for size in (1, 3):
        assert await pages(stub, pb.SearchRequest(query=query, page_size=size)) == whole
    assert len(set(whole)) == len(whole) > 1


async def test_filters_and_counts(stub):
    request = pb.SearchRequest(query="tea", category="tea", in_stock=True)
    request.price.CopyFrom(pb.PriceRange(currency="EUR", minimum_minor=600, maximum_minor=800))
    answer = await stub.Search(request)
    assert [hit.sku for hit in answer.hits] == ["tea-assam", "tea-earl-grey"]
    assert [(one.category, one.articles) for one in answer.categories] == [("tea", 2)]
    assert answer.corrected_query == ""
    assert (await stub.Search(pb.SearchRequest(query="drajeeling"))).corrected_query == "darjeeling"


async def test_what_is_typed_is_completed(stub):
    async def names(prefix, size=0):
        answer = await stub.Suggest(pb.SuggestRequest(prefix=prefix, page_size=size))
        return [one.text for one in answer.suggestions]

    assert await names("ass") == ["Assam", "Assam in bags"]
    assert await names("earl g") == ["Earl Grey"]
    assert await names("cafe") == ["Café crème"]
    assert await names("dajreeling") == ["Darjeeling First Flush"]
    assert await names("ass", 1) == ["Assam"]
    assert await names("malty") == []
    assert await names("") == await names("?!") == []


@pytest.mark.parametrize("query", HOSTILE)
async def test_no_query_is_refused(stub, query):
    await stub.Search(pb.SearchRequest(query=query))
    await stub.Suggest(pb.SuggestRequest(prefix=query))


@pytest.mark.parametrize(
    ("method", "request_", "refusal"),
    [
        ("Search", pb.SearchRequest(page_size=101), ("INVALID_ARGUMENT", "PAGE_INVALID")),
        ("Search", pb.SearchRequest(page_token="?"), ("INVALID_ARGUMENT", "PAGE_INVALID")),
        ("Search", pb.SearchRequest(page_token="WyJhIiwiYiIsImMiXQ=="), ("INVALID_ARGUMENT", "PAGE_INVALID")),
        ("Search", pb.SearchRequest(category="Tea!"), ("INVALID_ARGUMENT", "FILTER_INVALID")),
        ("Search", pb.SearchRequest(price=pb.PriceRange(currency="euro")), ("INVALID_ARGUMENT", "FILTER_INVALID")),
        (
            "Search",
            pb.SearchRequest(price=pb.PriceRange(currency="EUR", minimum_minor=2, maximum_minor=1)),
            ("INVALID_ARGUMENT", "FILTER_INVALID"),
        ),
        ("Suggest", pb.SuggestRequest(page_size=21), ("INVALID_ARGUMENT", "PAGE_INVALID")),
    ],
)
async def test_what_makes_no_sense_is_refused(stub, method, request_, refusal):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(stub, method)(request_)
    assert refusal_of(caught.value) == refusal


def test_every_refusal_has_a_status():
    assert refusals_of(domain, pages=True) - {IdentifierInvalidError} == set(ERRORS)


async def test_replicas_share_the_partitions_and_both_answer(replicas):
    async def shares():
        rows = await replicas[0][1].database.pool.fetch(
            "SELECT count(*) FROM inbox_position WHERE consumer = 'search@1' GROUP BY owner"
        )
        return [row[0] for row in rows] == [8, 8]

    await eventually(shares, what="two share", timeout=timedelta(seconds=30))
    for stub, _ in replicas:
        assert (await stub.Search(pb.SearchRequest())).total >= len(SOLD)


async def test_what_is_told_is_found_soon(stub, log):
    """The lag of the index, from an event in the log to an answer that has it: p99 below two seconds."""
    _, broker = log
    took = []
    for number in range(60):
        name = f"Lag{number}"
        began = time.monotonic()
        await broker.tell([changed(f"lag-{number}", 1, name), stocked(f"lag-{number}", 1, 1)])

        async def found(name=name):
            answer = await stub.Search(pb.SearchRequest(query=name, in_stock=True))
            return [hit.name for hit in answer.hits] == [name]

        await eventually(found, what=name)
        took.append(time.monotonic() - began)
        await broker.tell([withdrawn(f"lag-{number}", 2)])
    assert sorted(took)[-1] < 2.0, sorted(took)[-5:]

    async def gone():
        return not (await stub.Search(pb.SearchRequest(query="lag"))).hits

    await eventually(gone, what="nothing that was withdrawn is found")
