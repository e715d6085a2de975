"""Where a flow of the shop's choreography stands, whatever the order in which its events are seen."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from amends_saga.check import CheckResult, check
from amends_saga.choreography import ChoreographyPlan, FlowJudgement, Happened, judge
from amends_saga.choreography.flow import FlowState, short
from amends_saga.definition import Document
from hypothesis import given
from hypothesis import strategies as st

ORDER = (Path(__file__).parents[3] / "examples/place-order/choreography.yaml").read_text()
BEGAN = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def plan(shop_contract: bytes) -> ChoreographyPlan:
    found = check([Document("choreography.yaml", ORDER)], descriptors=shop_contract).choreographies[0].plan
    assert found is not None
    return found


def happened(plan: ChoreographyPlan, *names: str) -> list[Happened]:
    """Events of one flow, a second apart."""
    full = {short(name): name for name in plan.events}
    return [Happened(full[name], BEGAN + timedelta(seconds=number)) for number, name in enumerate(names)]


def missing(judgement: FlowJudgement) -> list[tuple[str, str, str, float]]:
    """What is missing: the events, by whom, upon what, and how many seconds after the beginning it is due."""
    return [
        ("|".join(map(short, one.events)), one.by, short(one.upon), (one.due_at - BEGAN).total_seconds())
        for one in judgement.missing
    ]


def test_each_event_says_what_is_expected_next_by_whom_and_until_when(plan: ChoreographyPlan) -> None:
    by_deadline = ("OrderConfirmed|OrderRejected", "orders", "OrderPlaced", 90)
    for names, expected in (
        (["OrderPlaced"], ("StockReserved|StockShort", "inventory", "OrderPlaced", 2)),
        (["OrderPlaced", "StockReserved"], ("PaymentFailed|PaymentTaken", "payments", "StockReserved", 16)),
        (
            ["OrderPlaced", "StockReserved", "PaymentTaken"],
            ("ParcelBooked|ParcelRefused", "shipping", "PaymentTaken", 4),
        ),
    ):
        found = judge(plan, happened(plan, *names))
        assert found.state is FlowState.RUNNING
        assert missing(found) == [expected, by_deadline]


def test_a_flow_ends_well_when_nothing_is_missing(plan: ChoreographyPlan) -> None:
    found = judge(
        plan, happened(plan, "OrderPlaced", "StockReserved", "PaymentTaken", "ParcelBooked", "OrderConfirmed")
    )
    assert (found.state, found.missing) == (FlowState.ENDED_WELL, ())


def test_a_rejected_flow_has_ended_when_all_that_was_done_is_undone(plan: ChoreographyPlan) -> None:
    names = ["OrderPlaced", "StockReserved", "PaymentTaken", "ParcelRefused", "OrderRejected"]
    found = judge(plan, happened(plan, *names))
    assert found.state is FlowState.RUNNING
    assert missing(found) == [
        ("StockReleased", "inventory", "OrderRejected", 9),
        ("PaymentRefunded", "payments", "OrderRejected", 19),
    ]
    found = judge(plan, happened(plan, *names, "PaymentRefunded"))
    assert missing(found) == [("StockReleased", "inventory", "OrderRejected", 9)]
    found = judge(plan, happened(plan, *names, "PaymentRefunded", "StockReleased"))
    assert found.state is FlowState.ENDED_UNDONE


def test_a_second_attempt_is_waited_for_that_may_end_in_another_way_than_the_first(shop_contract: bytes) -> None:
    answer = "[{by: inventory, with: [shop.inventory.events.v1.StockReserved], within: 10s}]"
    reserved = "    - event: shop.inventory.events.v1.StockReserved\n"
    text = ORDER.replace(reserved, f"{reserved}      atMost: 2\n")
    failed = "    - event: shop.payments.events.v1.PaymentFailed\n      effect: false\n"
    again = f"{failed}      atMost: 2\n      answers: {answer}\n"
    refused = "      answers: [{by: orders, with: [shop.orders.events.v1.OrderRejected], within: 2s}]\n"
    text = text.replace(failed + refused, again)
    plan = check([Document("choreography.yaml", text)], descriptors=shop_contract).choreographies[0].plan
    assert plan is not None
    second = ("StockReserved|StockShort", "inventory", "PaymentFailed", 12)
    assert second in missing(judge(plan, happened(plan, "OrderPlaced", "StockReserved", "PaymentFailed")))
    names = ["OrderPlaced", "StockReserved", "PaymentFailed", "StockReserved", "PaymentTaken"]
    assert all(
        by != "inventory" for events, by, _, _ in missing(judge(plan, happened(plan, *names))) if "Short" in events
    )


def test_what_is_undone_is_expected_before_the_end_has_come(plan: ChoreographyPlan) -> None:
    found = judge(plan, happened(plan, "OrderPlaced", "StockReserved", "PaymentFailed"))
    assert ("StockReleased", "inventory", "PaymentFailed", 7) in missing(found)
    assert ("OrderRejected", "orders", "PaymentFailed", 4) in missing(found)


def test_nothing_but_undoing_is_expected_of_a_rejected_flow(plan: ChoreographyPlan) -> None:
    found = judge(plan, happened(plan, "OrderPlaced", "OrderRejected"))
    assert found.state is FlowState.ENDED_UNDONE
    late = judge(plan, happened(plan, "OrderPlaced", "OrderRejected", "StockReserved"))
    assert late.state is FlowState.RUNNING
    assert missing(late) == [("StockReleased", "inventory", "OrderRejected", 6)]


def test_a_flow_without_its_beginning_misses_it_since_its_first_event(plan: ChoreographyPlan) -> None:
    found = judge(plan, happened(plan, "StockReserved", "PaymentTaken"))
    assert missing(found)[0] == ("OrderPlaced", "orders", "", 0)


def test_events_that_exclude_each_other_are_told(plan: ChoreographyPlan) -> None:
    both = judge(plan, happened(plan, "OrderPlaced", "OrderConfirmed", "OrderRejected"))
    assert both.state is FlowState.CONTRADICTORY
    assert both.contradiction == "It has ended well and undone: OrderConfirmed and OrderRejected."
    twice = judge(plan, happened(plan, "OrderPlaced", "PaymentTaken", "PaymentTaken"))
    assert twice.contradiction == "PaymentTaken has happened 2 times, and may happen at most 1."


def test_events_that_the_choreography_does_not_have_count_for_nothing(plan: ChoreographyPlan) -> None:
    events = happened(plan, "OrderPlaced")
    assert judge(plan, [*events, Happened("shop.orders.events.v1.OrderDispatched", BEGAN)]) == judge(plan, events)


@given(data=st.data())
def test_the_order_in_which_events_are_seen_changes_nothing(plan: ChoreographyPlan, data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(map(short, plan.events))), max_size=8, unique=True))
    events = happened(plan, *names)
    assert judge(plan, data.draw(st.permutations(events))) == judge(plan, events)


REPEATED = """kind: Choreography
apiVersion: amends.dev/v1alpha1
metadata: {name: tickets, namespace: shop}
spec:
  key: ticket_id
  start: {event: demo.events.v1.TicketOrdered}
  participants:
    - name: box-office
      publishes: [demo.events.v1.TicketOrdered, demo.events.v1.PaymentAsked, demo.events.v1.TicketIssued]
      consumes: [demo.events.v1.SeatTaken, demo.events.v1.SeatHeld]
    - name: hall
      publishes: [demo.events.v1.SeatHeld, demo.events.v1.SeatTaken]
      consumes: [demo.events.v1.TicketOrdered, demo.events.v1.PaymentAsked]
  events:
    - event: demo.events.v1.TicketOrdered
      answers: [{by: hall, with: [demo.events.v1.SeatHeld, demo.events.v1.SeatTaken], within: 5s}]
    - event: demo.events.v1.SeatTaken
      atMost: 3
      answers: [{by: box-office, with: [demo.events.v1.PaymentAsked, demo.events.v1.TicketIssued], within: 7s}]
    - event: demo.events.v1.PaymentAsked
      atMost: 2
      answers: [{by: hall, with: [demo.events.v1.SeatHeld, demo.events.v1.SeatTaken], within: 5s}]
    - event: demo.events.v1.SeatHeld
      answers: [{by: box-office, with: [demo.events.v1.TicketIssued], within: 7s}]
    - {event: demo.events.v1.TicketIssued, ends: Well}
"""


def test_each_round_of_a_repetition_has_an_answer_of_its_own(demo: Callable[..., CheckResult]) -> None:
    plan = demo(REPEATED).choreographies[0].plan
    assert plan is not None
    rounds = ["TicketOrdered", "SeatTaken", "PaymentAsked", "SeatTaken", "PaymentAsked"]
    found = judge(plan, happened(plan, *rounds))
    assert missing(found) == [("SeatHeld|SeatTaken", "hall", "PaymentAsked", 9)]
    found = judge(plan, happened(plan, *rounds, "SeatTaken"))
    assert missing(found) == [("PaymentAsked|TicketIssued", "box-office", "SeatTaken", 12)]
    assert judge(plan, happened(plan, *rounds, "SeatTaken", "TicketIssued")).state is FlowState.ENDED_WELL
