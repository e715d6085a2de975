"""Flows as the monitor shows them: real events of a real broker, in and out of order."""

import asyncio
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from amends_chassis.database import Database
from amends_testkit.service import refusal_of
from amends_testkit.waiting import eventually

from amends.monitor.v1 import monitor_service_pb2 as pb
from shop.types.v1.types_pb2 import FULFILMENT_ORCHESTRATED

from .conftest import ORDER, Monitor, event_of, new_key

ORDER_WITH_DISPATCH = ORDER.replace(
    "        - shop.orders.events.v1.OrderConfirmed\n",
    "        - shop.orders.events.v1.OrderConfirmed\n        - shop.orders.events.v1.OrderDispatched\n",
).replace(
    "    - event: shop.orders.events.v1.OrderConfirmed\n      ends: Well\n",
    "    - event: shop.orders.events.v1.OrderConfirmed\n      effect: false\n      answers:\n"
    "        - {by: orders, with: [shop.orders.events.v1.OrderDispatched], within: 7d}\n"
    "    - event: shop.orders.events.v1.OrderDispatched\n      ends: Well\n",
)
"""The same with an end behind the one that it has."""
WELL = ("OrderPlaced", "StockReserved", "PaymentTaken", "ParcelBooked", "OrderConfirmed")


def names(flow: pb.Flow) -> list[str]:
    return [event.event.rpartition(".")[2] for event in flow.events]


def missing(flow: pb.Flow) -> list[tuple[str, str, bool]]:
    return [("|".join(name.rpartition(".")[2] for name in one.events), one.by, one.late) for one in flow.missing]


async def test_a_flow_is_running_until_it_has_ended_well(monitor: Monitor) -> None:
    key = new_key()
    assert (await monitor.apply()).accepted
    await monitor.publish(key, *WELL[:2])
    flow = await monitor.until(key, pb.FLOW_STATE_RUNNING, 2)
    assert names(flow) == ["OrderPlaced", "StockReserved"]
    assert [event.by for event in flow.events] == ["orders", "inventory"]
    assert [event.source for event in flow.events] == ["/shop/orders", "/shop/inventory"]
    assert missing(flow)[0] == ("PaymentFailed|PaymentTaken", "payments", False)
    await monitor.publish(key, *WELL[2:])
    flow = await monitor.until(key, pb.FLOW_STATE_ENDED_WELL, 5)
    assert (names(flow), missing(flow)) == (list(WELL), [])


async def test_a_flow_is_late_when_an_answer_is_overdue_and_says_which_by_whom_since_when(monitor: Monitor) -> None:
    key = new_key()
    await monitor.apply()
    began = datetime.now(UTC) - timedelta(seconds=30)
    await monitor.publish(key, "OrderPlaced", began=began)
    await monitor.publish(key, "StockReserved", began=began + timedelta(seconds=1))
    flow = await monitor.until(key, pb.FLOW_STATE_LATE)
    assert missing(flow)[0] == ("PaymentFailed|PaymentTaken", "payments", True)
    assert flow.missing[0].upon == "shop.inventory.events.v1.StockReserved"
    due = flow.missing[0].due_at.ToDatetime(UTC)
    assert abs(due - (began + timedelta(seconds=16))) < timedelta(milliseconds=1)
    await monitor.publish(key, "PaymentTaken")
    flow = await monitor.until(key, pb.FLOW_STATE_RUNNING)
    assert missing(flow)[0] == ("ParcelBooked|ParcelRefused", "shipping", False)


async def test_a_rejected_flow_ends_when_everything_is_undone(monitor: Monitor) -> None:
    key = new_key()
    await monitor.apply()
    await monitor.publish(key, "OrderPlaced", "StockReserved", "PaymentTaken", "ParcelRefused", "OrderRejected")
    flow = await monitor.until(key, pb.FLOW_STATE_RUNNING, 5)
    assert {one for one, _, _ in missing(flow)} == {"StockReleased", "PaymentRefunded"}
    await monitor.publish(key, "PaymentRefunded", "StockReleased")
    assert not missing(await monitor.until(key, pb.FLOW_STATE_ENDED_UNDONE, 7))


async def test_events_that_come_late_twice_and_in_another_order_change_nothing(monitor: Monitor) -> None:
    """Topics have no order between them, and each may have an event twice."""
    key = new_key()
    await monitor.apply()
    began = datetime.now(UTC) - timedelta(seconds=4)
    events = []
    for number, name in reversed(list(enumerate(WELL))):
        events += await monitor.publish(key, name, began=began + timedelta(seconds=number))
        if name != "OrderPlaced":
            flow = await monitor.until(key, pb.FLOW_STATE_LATE)
            assert missing(flow)[0] == ("OrderPlaced", "orders", True)  # its beginning is missing since it has events
    for event in events:
        await monitor.append(event)
    flow = await monitor.until(key, pb.FLOW_STATE_ENDED_WELL)
    assert names(flow) == list(WELL)


async def test_what_the_condition_leaves_out_is_not_shown(monitor: Monitor) -> None:
    other, key = new_key(), new_key()
    await monitor.apply()
    await monitor.publish(other, *WELL, fulfilment=FULFILMENT_ORCHESTRATED)
    await monitor.publish(key, *WELL)
    await monitor.until(key, pb.FLOW_STATE_ENDED_WELL)

    async def left_out() -> bool:
        return not (await monitor.list(key=other)).flows

    await eventually(left_out, what="the orchestrated order is left out")
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await monitor.flow(other)
    assert refusal_of(error.value) == ("NOT_FOUND", "FLOW_UNKNOWN")


async def test_events_that_exclude_each_other_are_shown(monitor: Monitor) -> None:
    key = new_key()
    await monitor.apply()
    await monitor.publish(key, "OrderPlaced", "OrderConfirmed", "OrderRejected")
    flow = await monitor.until(key, pb.FLOW_STATE_CONTRADICTORY, 3)
    assert flow.contradiction == "It has ended well and undone: OrderConfirmed and OrderRejected."


async def test_a_new_choreography_begins_with_the_oldest_event_that_there_is(monitor: Monitor) -> None:
    key = new_key()
    await monitor.publish(key, *WELL)
    await monitor.apply()
    assert names(await monitor.until(key, pb.FLOW_STATE_ENDED_WELL)) == list(WELL)


async def test_a_change_judges_the_flows_that_are_there_and_reads_what_it_needs_anew(monitor: Monitor) -> None:
    key = new_key()
    first = await monitor.apply()
    await monitor.publish(key, *WELL)
    await monitor.until(key, pb.FLOW_STATE_ENDED_WELL)
    changed = await monitor.apply(ORDER_WITH_DISPATCH)
    assert changed.accepted, changed.findings
    assert changed.choreography.digest != first.choreography.digest
    flow = await monitor.until(key, pb.FLOW_STATE_RUNNING)
    assert missing(flow) == [("OrderDispatched", "orders", False)]
    await monitor.publish(key, "OrderDispatched")
    await monitor.until(key, pb.FLOW_STATE_ENDED_WELL, 6)
    same = await monitor.apply(ORDER_WITH_DISPATCH)
    assert same.choreography.applied_at == changed.choreography.applied_at


async def test_a_choreography_that_names_fewer_events_keeps_nothing_of_the_others(
    monitor: Monitor, database: Database
) -> None:
    full, rest = new_key(), new_key()
    await monitor.apply(ORDER_WITH_DISPATCH)
    await monitor.publish(full, *WELL)
    await monitor.publish(rest, "OrderDispatched")
    await monitor.until(full, pb.FLOW_STATE_RUNNING, 5)
    await monitor.until(rest, pb.FLOW_STATE_LATE, 1)
    await monitor.apply()
    await monitor.until(full, pb.FLOW_STATE_ENDED_WELL)

    async def forgotten() -> bool:
        return not await database.pool.fetchval("SELECT count(*) FROM flow WHERE key = $1", rest)

    await eventually(forgotten, what="the flow without an event is forgotten")
    assert await database.pool.fetchval("SELECT count(*) FROM flow_event WHERE key = $1", rest) == 0


async def test_two_choreographies_read_the_same_events_each_for_itself(monitor: Monitor) -> None:
    key = new_key()
    await monitor.apply()
    await monitor.apply(ORDER_WITH_DISPATCH, f"{monitor.name}-dispatched")
    await monitor.publish(key, *WELL)
    await monitor.until(key, pb.FLOW_STATE_ENDED_WELL)
    await monitor.until(key, pb.FLOW_STATE_RUNNING)
    found = {(flow.choreography, flow.state) for flow in (await monitor.list(key=key)).flows}
    assert found == {
        (monitor.name, pb.FLOW_STATE_ENDED_WELL),
        (f"{monitor.name}-dispatched", pb.FLOW_STATE_RUNNING),
    }


async def test_a_deleted_choreography_has_no_flows(monitor: Monitor) -> None:
    key = new_key()
    await monitor.apply()
    await monitor.publish(key, *WELL)
    await monitor.until(key, pb.FLOW_STATE_ENDED_WELL)
    request = pb.DeleteChoreographyRequest(namespace="shop", name=monitor.name)
    assert (await monitor.stub.DeleteChoreography(request)).deleted
    assert not (await monitor.stub.DeleteChoreography(request)).deleted
    assert not (await monitor.list()).flows
    assert not (await monitor.stub.ListChoreographies(pb.ListChoreographiesRequest())).choreographies


async def test_a_choreography_is_deleted_while_its_events_are_written_down(
    monitor: Monitor, database: Database
) -> None:
    await monitor.apply()
    consumer = f"shop/{monitor.name}#%"

    async def reads() -> bool:
        return bool(
            await database.pool.fetchval("SELECT count(*) FROM inbox_position WHERE consumer LIKE $1", consumer)
        )

    await eventually(reads, what="the choreography is read")
    request = pb.DeleteChoreographyRequest(namespace="shop", name=monitor.name)
    async with database.transaction() as transaction:  # as a reader does it

        async def is_waited_for() -> bool:
            return bool(await transaction.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))

        await transaction.execute("UPDATE inbox_position SET position = position WHERE consumer LIKE $1", consumer)
        deleting = asyncio.ensure_future(monitor.stub.DeleteChoreography(request))
        await eventually(is_waited_for, what="the deletion waits")
        await transaction.execute("SELECT FROM choreography WHERE name = $1 FOR KEY SHARE", monitor.name)
    assert (await deleting).deleted


async def test_an_event_without_a_key_is_left_out(monitor: Monitor) -> None:
    from shop.orders.events.v1.orders_pb2 import OrderRejected

    key = new_key()
    await monitor.apply()
    await monitor.append(event_of(OrderRejected(order_id=""), datetime.now(UTC)))
    await monitor.publish(key, *WELL)
    await monitor.until(key, pb.FLOW_STATE_ENDED_WELL)
    assert not [flow for flow in (await monitor.list(page_size=1000)).flows if not flow.key]
