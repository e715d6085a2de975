"""The service as its callers see it: over gRPC, with the real barrier and a real database."""

import base64

import grpc
import pytest
from amends_testkit.service import refusal_of, refusals_of
from shop_orders import api, domain

from amends.saga.v1 import run_pb2
from shop.orders.v1 import orders_pb2 as pb
from shop.types.v1.types_pb2 import Address, Line, Money

HOME = Address(recipient="Ada Lovelace", street="Gartenstr. 1", city="Berlin", postal_code="10115", country="DE")
TEA = [Line(sku="tea", quantity=2)]


def order(order_id="o-1", **other):
    known = {"customer_id": "c-1", "lines": TEA, "card_token": "tok_visa", "address": HOME}
    return pb.PlaceOrderRequest(order_id=order_id, **(known | other))


def token(text):
    """A page token that nobody was given."""
    return base64.urlsafe_b64encode(text.encode()).decode()


PAGE_INVALID = ("INVALID_ARGUMENT", "PAGE_INVALID")


@pytest.fixture
async def shop(service):
    """The service with something for sale."""
    for sku, currency, minor in (("tea", "EUR", 450), ("cup", "EUR", 1000), ("gold", "USD", 10**12)):
        await service.SetPrice(pb.SetPriceRequest(sku=sku, price=Money(currency=currency, minor=minor)))
    return service


def test_every_refusal_of_the_domain_has_an_answer():
    assert set(api.ERRORS) == refusals_of(domain, pages=True)


def test_every_state_of_an_order_has_its_place_in_the_contract():
    assert set(api.STATES) == set(domain.OrderState)


async def test_a_placed_order_costs_what_the_price_list_says_and_its_saga_runs(shop, orchestrator):
    placed = (await shop.PlaceOrder(order())).order
    assert (placed.state, placed.run_id) == (pb.ORDER_STATE_PENDING, "run-o-1")
    assert placed.total == Money(currency="EUR", minor=900)
    assert await orchestrator.started("o-1") == pb.PlaceOrderInput(
        order_id="o-1", customer_id="c-1", lines=TEA, total=placed.total, card_token="tok_visa", address=HOME
    )


async def test_a_repeated_order_is_the_same_order_whatever_prices_do(shop, orchestrator):
    first = await shop.PlaceOrder(order())
    await shop.SetPrice(pb.SetPriceRequest(sku="tea", price=Money(currency="EUR", minor=999)))
    assert await shop.PlaceOrder(order()) == first
    assert len(orchestrator.runs) == 1


async def test_an_order_id_is_not_for_two_orders(shop):
    await shop.PlaceOrder(order())
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await shop.PlaceOrder(order(card_token="tok_mastercard"))
    assert refusal_of(error.value) == ("ALREADY_EXISTS", "ORDER_REUSED")


async def test_an_order_without_an_id_gets_one(shop):
    ids = {(await shop.PlaceOrder(order(order_id=""))).order.order_id for _ in range(2)}
    assert len(ids) == 2


async def test_a_confirmed_order_has_its_papers(shop, call):
    await shop.PlaceOrder(order())
    papers = pb.ConfirmRequest(order_id="o-1", tracking_id="trk-1", payment_id="pay-1")
    for _ in range(2):
        await shop.Confirm(papers, metadata=call("k-1"))
    confirmed = (await shop.GetOrder(pb.GetOrderRequest(order_id="o-1"))).order
    assert (confirmed.state, confirmed.tracking_id) == (pb.ORDER_STATE_CONFIRMED, "trk-1")
    assert (confirmed.payment_id, confirmed.placed_at.seconds > 0) == ("pay-1", True)


async def test_a_voided_confirmation_never_happens(shop, call):
    await shop.PlaceOrder(order())
    papers = pb.ConfirmRequest(order_id="o-1", tracking_id="trk-1", payment_id="pay-1")
    await shop.Confirm(papers, metadata=call("k-1", "void"))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await shop.Confirm(papers, metadata=call("k-1"))
    assert refusal_of(error.value) == ("ABORTED", "STEP_FENCED")
    assert (await shop.GetOrder(pb.GetOrderRequest(order_id="o-1"))).order.state == pb.ORDER_STATE_PENDING


async def test_a_customer_who_waits_is_told_why_the_order_was_rejected(shop, orchestrator):
    placing = shop.PlaceOrder(order(wait=True))
    await orchestrator.started("o-1")
    await orchestrator.end("o-1", run_pb2.RUN_STATE_COMPENSATED, "COMPENSATED: the card was declined")
    rejected = (await placing).order
    assert (rejected.state, rejected.reason) == (pb.ORDER_STATE_REJECTED, "COMPENSATED: the card was declined")


async def test_a_customer_who_waits_is_told_that_the_order_is_confirmed(shop, orchestrator, call):
    placing = shop.PlaceOrder(order(wait=True))
    await orchestrator.started("o-1")
    papers = pb.ConfirmRequest(order_id="o-1", tracking_id="trk-1", payment_id="pay-1")
    await shop.Confirm(papers, metadata=call("k-1"))
    await orchestrator.end("o-1", run_pb2.RUN_STATE_COMPLETED)
    assert (await placing).order.state == pb.ORDER_STATE_CONFIRMED


async def test_a_customer_who_waits_is_answered_before_the_deadline(shop):
    waited = await shop.PlaceOrder(order(wait=True), timeout=1.2)
    assert waited.order.state == pb.ORDER_STATE_PENDING


async def test_a_customer_does_not_wait_for_a_person(shop, orchestrator):
    placing = shop.PlaceOrder(order(wait=True), timeout=30)
    await orchestrator.started("o-1")
    await orchestrator.end("o-1", run_pb2.RUN_STATE_PARKED)
    assert (await placing).order.state == pb.ORDER_STATE_PENDING


async def test_orders_are_listed_page_by_page(shop):
    for number in range(5):
        await shop.PlaceOrder(order(f"o-{number}", customer_id=f"c-{number % 2}"))
    listed, token = [], ""
    while True:
        page = await shop.ListOrders(pb.ListOrdersRequest(page_size=2, page_token=token))
        listed += [each.order_id for each in page.orders]
        token = page.next_page_token
        if not token:
            break
    assert listed == ["o-4", "o-3", "o-2", "o-1", "o-0"]
    own = await shop.ListOrders(pb.ListOrdersRequest(customer_id="c-1"))
    assert [each.order_id for each in own.orders] == ["o-3", "o-1"]
    assert not own.next_page_token


async def test_a_page_of_large_orders_ends_before_an_answer_is_too_large(shop, monkeypatch):
    for number in range(5):
        placed = (await shop.PlaceOrder(order(f"o-{number}"))).order
    monkeypatch.setattr(api, "MAX_PAGE_BYTES", 5 * placed.ByteSize() // 2)  # they differ by a byte or two
    pages, token = [], ""
    while not pages or token:
        page = await shop.ListOrders(pb.ListOrdersRequest(page_size=500, page_token=token))
        pages.append([each.order_id for each in page.orders])
        token = page.next_page_token
    assert pages == [["o-4", "o-3"], ["o-2", "o-1"], ["o-0"]]

    monkeypatch.setattr(api, "MAX_PAGE_BYTES", 1)
    alone = await shop.ListOrders(pb.ListOrdersRequest(page_size=500))
    assert [each.order_id for each in alone.orders] == ["o-4"], "one order at least, else no page would ever end"


@pytest.mark.parametrize(
    ("method", "request_", "expected"),
    [
        ("PlaceOrder", order("not a name"), ("INVALID_ARGUMENT", "IDENTIFIER_INVALID")),
        ("PlaceOrder", order(customer_id=""), ("INVALID_ARGUMENT", "IDENTIFIER_INVALID")),
        ("PlaceOrder", order(lines=[]), ("INVALID_ARGUMENT", "LINES_INVALID")),
        ("PlaceOrder", order(lines=TEA * 101), ("INVALID_ARGUMENT", "LINES_INVALID")),
        ("PlaceOrder", order(card_token=""), ("INVALID_ARGUMENT", "CARD_INVALID")),
        ("PlaceOrder", order(address=None), ("INVALID_ARGUMENT", "ADDRESS_INVALID")),
        ("PlaceOrder", order(lines=[Line(sku="ham", quantity=1)]), ("FAILED_PRECONDITION", "PRICE_UNKNOWN")),
        (
            "PlaceOrder",
            order(lines=[*TEA, Line(sku="gold", quantity=1)]),
            ("FAILED_PRECONDITION", "CURRENCIES_MIXED"),
        ),
        ("PlaceOrder", order(lines=[Line(sku="gold", quantity=2)]), ("INVALID_ARGUMENT", "TOTAL_TOO_LARGE")),
        ("GetOrder", pb.GetOrderRequest(order_id="o-1"), ("NOT_FOUND", "ORDER_UNKNOWN")),
        ("ListOrders", pb.ListOrdersRequest(page_size=501), ("INVALID_ARGUMENT", "PAGE_INVALID")),
        ("ListOrders", pb.ListOrdersRequest(page_size=-1), ("INVALID_ARGUMENT", "PAGE_INVALID")),
        ("ListOrders", pb.ListOrdersRequest(page_token="x"), ("INVALID_ARGUMENT", "PAGE_INVALID")),
        ("ListOrders", pb.ListOrdersRequest(page_token="MjAyNi0xMS0yM3xvLTE="), ("INVALID_ARGUMENT", "PAGE_INVALID")),
        ("ListOrders", pb.ListOrdersRequest(page_token=token("0001-01-01T00:00:00+14:00|x")), PAGE_INVALID),
        ("ListOrders", pb.ListOrdersRequest(page_token=token("9999-12-31T23:59:59-14:00|x")), PAGE_INVALID),
        ("ListOrders", pb.ListOrdersRequest(page_token=token("2026-01-01T00:00:00+00:00|\0")), PAGE_INVALID),
        ("ListOrders", pb.ListOrdersRequest(page_token=token("|")), PAGE_INVALID),
        (
            "Confirm",
            pb.ConfirmRequest(order_id="o-1", tracking_id="t", payment_id="p"),
            ("NOT_FOUND", "ORDER_UNKNOWN"),
        ),
        ("Confirm", pb.ConfirmRequest(order_id="o-1"), ("INVALID_ARGUMENT", "IDENTIFIER_INVALID")),
        ("SetPrice", pb.SetPriceRequest(sku="tea"), ("INVALID_ARGUMENT", "PRICE_INVALID")),
    ],
)
async def test_a_wrong_request_is_refused_with_a_reason_and_starts_nothing(
    shop, orchestrator, method, request_, expected
):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await getattr(shop, method)(request_)
    assert refusal_of(error.value) == expected
    assert orchestrator.runs == {}
