"""No order is left behind, whatever died in between: the whole service with its loop, among neighbours that fail."""

from functools import partial

import grpc
import pytest
from amends_events import Outbox
from amends_testkit.waiting import eventually
from shop_orders import domain, order_process, store
from shop_orders.domain import Address, Content, Line, Money
from shop_orders.events import PUBLISHES

from amends.saga.v1 import run_pb2
from shop.orders.v1 import orders_pb2 as pb
from shop.types.v1 import types_pb2

HOME = Address("Ada Lovelace", "Gartenstr. 1", "Berlin", "10115", "DE")
WISH = domain.content("c-1", [Line("tea", 2)], "tok_visa", HOME)


def as_request(order_id: str, wish: Content) -> pb.PlaceOrderRequest:
    address = wish.address
    return pb.PlaceOrderRequest(
        order_id=order_id,
        customer_id=wish.customer_id,
        lines=[types_pb2.Line(sku=line.sku, quantity=line.quantity) for line in wish.lines],
        card_token=wish.card_token,
        address=types_pb2.Address(
            recipient=address.recipient,
            street=address.street,
            city=address.city,
            postal_code=address.postal_code,
            country=address.country,
        ),
    )


@pytest.fixture
async def shop(service):
    """The service with something for sale."""
    await service.SetPrice(pb.SetPriceRequest(sku="tea", price=types_pb2.Money(currency="EUR", minor=450)))
    return service


@pytest.fixture
def place_and_die(database):
    """What is left of a PlaceOrder whose process died before it could start the saga."""

    async def place(order_id):
        async with database.transaction() as transaction:
            outbox = Outbox("/shop/orders", PUBLISHES)
            await store.add(transaction, outbox, order_id, WISH, Money("EUR", 900), {"tea": Money("EUR", 450)})

    return place


@pytest.fixture
def make_due(database):
    """Time passes."""

    async def due():
        await database.pool.execute("UPDATE orders SET follow_up_at = now() WHERE follow_up_at IS NOT NULL")

    return due


@pytest.fixture
def order_once(shop):
    """The order as soon as it is in a state."""

    async def wait(order_id, state):
        async def look():
            order = (await shop.GetOrder(pb.GetOrderRequest(order_id=order_id))).order
            return order if order.state == state else None

        return await eventually(look)

    return wait


@pytest.fixture
def finished(database):
    """True once nothing is left to do for any order."""

    async def look():
        return await database.pool.fetchval("SELECT count(follow_up_at) = 0 FROM orders")

    return look


async def test_an_order_whose_saga_was_never_started_is_started(shop, orchestrator, place_and_die, make_due, database):
    await place_and_die("o-1")
    await make_due()
    assert (await orchestrator.started("o-1")).card_token == "tok_visa"
    await eventually(lambda: database.pool.fetchval("SELECT run_id = 'run-o-1' AND card_token IS NULL FROM orders"))


async def test_an_order_is_accepted_while_the_orchestrator_is_away(shop, orchestrator, make_due, database):
    orchestrator.refuses_with = grpc.StatusCode.UNAVAILABLE
    placed = (await shop.PlaceOrder(as_request("o-1", WISH))).order
    assert (placed.state, placed.run_id) == (pb.ORDER_STATE_PENDING, "")
    assert await database.pool.fetchval("SELECT card_token FROM orders") == "tok_visa"
    orchestrator.refuses_with = None
    await make_due()
    await orchestrator.started("o-1")
    await eventually(lambda: database.pool.fetchval("SELECT card_token IS NULL FROM orders"))


async def test_a_start_that_nobody_wrote_down_is_found_again_and_not_repeated(shop, orchestrator, make_due, database):
    await shop.PlaceOrder(as_request("o-1", WISH))
    await database.pool.execute("UPDATE orders SET run_id = NULL, card_token = 'tok_visa'")
    await make_due()
    await eventually(lambda: database.pool.fetchval("SELECT run_id = 'run-o-1' FROM orders"))
    assert len(orchestrator.runs) == 1


async def test_an_order_whose_saga_was_undone_is_rejected_with_the_reason(shop, orchestrator, make_due, order_once):
    await shop.PlaceOrder(as_request("o-1", WISH))
    await orchestrator.end("o-1", run_pb2.RUN_STATE_COMPENSATED, "COMPENSATED: no slot is left")
    await make_due()
    assert (await order_once("o-1", pb.ORDER_STATE_REJECTED)).reason == "COMPENSATED: no slot is left"


async def test_an_order_whose_saga_waits_for_a_person_waits_too(shop, orchestrator, make_due, order_once, database):
    await shop.PlaceOrder(as_request("o-1", WISH))
    await orchestrator.end("o-1", run_pb2.RUN_STATE_PARKED, "PARKED")
    await make_due()
    await eventually(lambda: database.pool.fetchval("SELECT follow_up_tries > 2 FROM orders"))
    assert (await order_once("o-1", pb.ORDER_STATE_PENDING)).reason == ""
    await orchestrator.end("o-1", run_pb2.RUN_STATE_COMPENSATED, "COMPENSATED")
    await order_once("o-1", pb.ORDER_STATE_REJECTED)


async def test_a_new_order_that_the_orchestrator_cannot_read_is_rejected(shop, orchestrator, database):
    orchestrator.refuses_with = grpc.StatusCode.INVALID_ARGUMENT
    placed = (await shop.PlaceOrder(as_request("o-1", WISH))).order
    assert (placed.state, placed.reason) == (pb.ORDER_STATE_REJECTED, "the order could not be processed")
    assert await database.pool.fetchval("SELECT card_token IS NULL FROM orders")
    assert orchestrator.looked_up["o-1"] == 1


@pytest.mark.parametrize("refusal", ["INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"])
async def test_an_order_whose_start_was_answered_to_nobody_follows_its_run_whatever_a_later_start_is_told(
    shop, orchestrator, make_due, order_once, refusal
):
    orchestrator.loses_answers = True
    assert (await shop.PlaceOrder(as_request("o-1", WISH))).order.run_id == ""
    orchestrator.loses_answers, orchestrator.refuses_with = False, grpc.StatusCode[refusal]
    await make_due()
    await eventually(lambda: orchestrator.looked_up["o-1"])
    assert (await order_once("o-1", pb.ORDER_STATE_PENDING)).reason == ""
    await orchestrator.end("o-1", run_pb2.RUN_STATE_COMPENSATED, "COMPENSATED: no slot is left")
    await make_due()
    assert (await order_once("o-1", pb.ORDER_STATE_REJECTED)).run_id == "run-o-1"


async def test_an_order_that_was_asked_for_before_is_rejected_only_when_every_question_was_refused_for_a_while(
    shop, orchestrator, place_and_die, make_due, order_once, database
):
    await place_and_die("o-1")
    orchestrator.refuses_with = grpc.StatusCode.INVALID_ARGUMENT
    await make_due()
    await eventually(lambda: database.pool.fetchval("SELECT refused_since IS NOT NULL FROM orders"))
    orchestrator.refuses_with = grpc.StatusCode.UNAVAILABLE
    await make_due()
    await eventually(lambda: database.pool.fetchval("SELECT refused_since IS NULL FROM orders"))
    orchestrator.refuses_with = grpc.StatusCode.INVALID_ARGUMENT
    await make_due()
    await eventually(lambda: database.pool.fetchval("SELECT refused_since IS NOT NULL FROM orders"))
    assert (await order_once("o-1", pb.ORDER_STATE_PENDING)).reason == ""
    await database.pool.execute("UPDATE orders SET refused_since = now() - $1::interval", order_process.REFUSED_FOR)
    await make_due()
    assert (await order_once("o-1", pb.ORDER_STATE_REJECTED)).reason == "the order could not be processed"


@pytest.mark.parametrize("refusal", ["NOT_FOUND", "FAILED_PRECONDITION"])
async def test_an_order_is_not_rejected_because_its_saga_is_not_there_yet(shop, orchestrator, make_due, refusal):
    orchestrator.refuses_with = grpc.StatusCode[refusal]
    assert (await shop.PlaceOrder(as_request("o-1", WISH))).order.state == pb.ORDER_STATE_PENDING
    await make_due()
    await eventually(lambda: orchestrator.asked["o-1"] > 1)
    orchestrator.refuses_with = None
    await make_due()
    assert (await orchestrator.started("o-1")).order_id == "o-1"


async def test_an_order_whose_key_has_a_run_of_something_else_waits_for_a_person(shop, orchestrator):
    orchestrator.inputs["o-1"] = b"something else"
    placed = (await shop.PlaceOrder(as_request("o-1", WISH))).order
    assert placed.attention == "the run with the key of this order was begun with other input"
    del orchestrator.inputs["o-1"]
    again = (await shop.PlaceOrder(as_request("o-1", WISH))).order
    assert (again.state, again.run_id, again.attention) == (pb.ORDER_STATE_PENDING, "run-o-1", "")


async def test_an_order_whose_last_step_a_person_skipped_is_confirmed(shop, orchestrator, make_due, order_once):
    await shop.PlaceOrder(as_request("o-1", WISH))
    await orchestrator.end(
        "o-1",
        run_pb2.RUN_STATE_COMPLETED,
        ship={"trackingId": "trk-1", "carrier": "postal"},
        charge={"paymentId": "pay-1"},
    )
    await make_due()
    confirmed = await order_once("o-1", pb.ORDER_STATE_CONFIRMED)
    assert (confirmed.tracking_id, confirmed.payment_id) == ("trk-1", "pay-1")


PAPERS = {"ship": {"trackingId": "trk-1"}, "charge": {"paymentId": "pay-1"}}


async def test_a_customer_who_asks_again_is_told_confirmed_with_the_papers_of_the_run(shop, orchestrator):
    await shop.PlaceOrder(as_request("o-1", WISH))
    await orchestrator.end("o-1", run_pb2.RUN_STATE_COMPLETED, **PAPERS)
    again = as_request("o-1", WISH)
    again.wait = True
    confirmed = (await shop.PlaceOrder(again)).order
    assert (confirmed.state, confirmed.tracking_id) == (pb.ORDER_STATE_CONFIRMED, "trk-1")
    assert confirmed.payment_id == "pay-1"


@pytest.mark.parametrize("skipped", ["ship", "charge"])
@pytest.mark.parametrize("wait", [True, False], ids=["waiting", "followed up"])
async def test_an_order_without_its_papers_waits_for_a_person_who_completes_it(
    shop, orchestrator, make_due, order_once, skipped, wait
):
    await shop.PlaceOrder(as_request("o-1", WISH))
    known = {step: response for step, response in PAPERS.items() if step != skipped}
    await orchestrator.end("o-1", run_pb2.RUN_STATE_COMPLETED, **known)
    again = as_request("o-1", WISH)
    again.wait = wait
    await shop.PlaceOrder(again)
    await make_due()
    missing = {"ship": "tracking id", "charge": "payment id"}[skipped]

    async def said():
        return (await order_once("o-1", pb.ORDER_STATE_PENDING)).attention

    assert await eventually(said) == f"the run run-o-1 of this order was completed without a {missing}"
    await shop.Confirm(pb.ConfirmRequest(order_id="o-1", tracking_id="trk-9", payment_id="pay-9"))
    confirmed = await order_once("o-1", pb.ORDER_STATE_CONFIRMED)
    assert (confirmed.tracking_id, confirmed.payment_id, confirmed.attention) == ("trk-9", "pay-9", "")


async def test_an_order_says_that_its_run_waits_for_a_decision_until_the_run_goes_on(
    shop, orchestrator, make_due, order_once
):
    await shop.PlaceOrder(as_request("o-1", WISH))
    await orchestrator.end("o-1", run_pb2.RUN_STATE_PARKED)

    async def said(wanted):
        await make_due()
        assert (await order_once("o-1", pb.ORDER_STATE_PENDING)).attention == wanted
        return True

    assert await eventually(partial(said, "the run run-o-1 of this order waits for a decision"))
    await orchestrator.end("o-1", run_pb2.RUN_STATE_COMPENSATING)
    assert await eventually(partial(said, ""))


async def test_the_stock_of_a_confirmed_order_is_dispatched(shop, inventory, finished, call):
    await shop.PlaceOrder(as_request("o-1", WISH))
    await shop.Confirm(pb.ConfirmRequest(order_id="o-1", tracking_id="t", payment_id="p"), metadata=call("k-1"))
    await eventually(finished)
    assert inventory.dispatched == ["o-1"]


async def test_the_stock_is_dispatched_when_inventory_is_back(shop, inventory, finished, call):
    inventory.away = True
    await shop.PlaceOrder(as_request("o-1", WISH))
    await shop.Confirm(pb.ConfirmRequest(order_id="o-1", tracking_id="t", payment_id="p"), metadata=call("k-1"))
    await eventually(lambda: len(inventory.dispatched) > 1)
    inventory.away = False
    await eventually(finished)
    assert set(inventory.dispatched) == {"o-1"}


async def test_a_confirmed_order_learns_its_run_afterwards(shop, orchestrator, place_and_die, finished, call):
    await place_and_die("o-1")
    orchestrator.runs["o-1"] = run_pb2.Run(run_id="run-o-1", state=run_pb2.RUN_STATE_COMPLETED)
    await shop.Confirm(pb.ConfirmRequest(order_id="o-1", tracking_id="t", payment_id="p"), metadata=call("k-1"))
    await eventually(finished)
    assert (await shop.GetOrder(pb.GetOrderRequest(order_id="o-1"))).order.run_id == "run-o-1"


async def test_one_order_that_cannot_go_on_does_not_hold_up_the_others(shop, orchestrator, make_due, order_once):
    for number in range(20):
        await shop.PlaceOrder(as_request(f"o-{number}", WISH))
    await orchestrator.end("o-19", run_pb2.RUN_STATE_COMPENSATED, "COMPENSATED")
    del orchestrator.runs["o-0"]
    await make_due()
    assert (await order_once("o-19", pb.ORDER_STATE_REJECTED)).reason == "COMPENSATED"
