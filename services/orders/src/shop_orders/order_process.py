"""The life of an order: accept it, start its saga or let events take over, learn how that ended, send the goods.

`api.py` calls it for a customer who may be waiting, `followup.py` for every order that nobody is waiting for any more.
Each step leaves the database in a state from which the other one can go on.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from amends_chassis.database import Database
from amends_events import Outbox

from amends.saga.v1 import run_pb2
from shop_orders import articles, domain, store
from shop_orders.arrangements import Arrangements
from shop_orders.domain import (
    Content,
    Fulfilment,
    FulfilmentUnavailable,
    Money,
    NeighbourAway,
    Order,
    OrderClosed,
    OrderReused,
    OrderState,
)
from shop_orders.saga import KeyReused, OrchestratorAway, PlaceOrderSaga, RunClosed, RunUnknown, SagaRefused
from shop_orders.warehouse import Warehouse, WarehouseAway

if TYPE_CHECKING:
    from amends_chassis.database import Connection

_log = structlog.get_logger(__name__)

START_POSTPONED = "order.start_postponed"
SAGA_REFUSED = "order.saga_refused"
WAIT_ENDED = "order.wait_ended"
FOLLOW_UP_POSTPONED = "order.follow_up_postponed"
NEEDS_ATTENTION = "order.needs_attention"
DEADLINE_PASSED = "order.deadline_passed"

CANCELLED = "CANCELLED"
CANCELLED_REASON = "cancelled by the customer"

WATCH_FIRST, WATCH_LAST = timedelta(milliseconds=10), timedelta(milliseconds=200)
"""The pauses between looks at a choreographed order that a customer waits for, the first and the longest."""

NEVER_ASKED = timedelta()
"""The saga of an order that was accepted just now: nobody has asked for it before, so a refusal is the last word."""
REFUSED_FOR = timedelta(minutes=1)
"""An order that may have a run is rejected only when every question was refused for this long.

Longer than a StartRun lives whose answer was lost, so that none is on its way any more.
"""
REFUND = "refund"
"""What the saga offers a person behind the point of no return."""
UNDER_WAY = (run_pb2.RUN_STATE_RUNNING, run_pb2.RUN_STATE_COMPENSATING)


@dataclass(frozen=True, slots=True)
class Quote:
    """The price of an order in all, and of one piece of each article."""

    total: Money
    prices: Mapping[str, Money]


class OrderProcess:
    """Brings orders to their end."""

    def __init__(
        self,
        database: Database,
        outbox: Outbox,
        saga: PlaceOrderSaga,
        warehouse: Warehouse,
        arrangements: Arrangements | None,
    ) -> None:
        """Without `arrangements` every order is orchestrated."""
        self._database = database
        self._outbox = outbox
        self._saga = saga
        self._warehouse = warehouse
        self._arrangements = arrangements

    async def place(self, order_id: str, content: Content, fulfilment: Fulfilment) -> Order:
        """Accept the order, or find it accepted, and start its saga; a choreographed one is started by its event.

        When the orchestrator is away the order is accepted all the same and started by the follow-up. An order that was
        accepted before stays as it is, also if it is fulfilled in another way.
        Raises OrderReused, PriceUnknown, CurrenciesMixed, TotalTooLarge, FulfilmentUnavailable, NeighbourAway.
        """
        quote = await self._arranged(order_id, content) if fulfilment is Fulfilment.CHOREOGRAPHED else None
        async with self._database.transaction() as transaction:
            is_new = await self._accept(transaction, order_id, content, quote)
            order = await store.order_of(transaction, order_id)
            if not is_new and order.state is OrderState.PENDING:
                await store.wake(transaction, order_id)
        if order.card_token is None:
            return order
        try:
            await self._start(order, NEVER_ASKED if is_new else REFUSED_FOR)
        except OrchestratorAway as error:
            _log.warning(START_POSTPONED, order_id=order_id, why=str(error))
        return await self._stored(order_id)

    async def _arranged(self, order_id: str, content: Content) -> "Quote | None":
        """Price a new choreographed order, and hand over what no event carries; None when it was accepted before."""
        async with self._database.transaction() as transaction:
            if await store.digest_of(transaction, order_id) is not None:
                return None
            quote = await _quote(transaction, content)
        if self._arrangements is None:
            raise FulfilmentUnavailable("choreographed orders need a broker, payments and shipping")
        await self._arrangements.make(order_id, content, quote.total)
        return quote

    async def _accept(
        self, transaction: "Connection", order_id: str, content: Content, arranged: "Quote | None"
    ) -> bool:
        """Write the order down, choreographed if that is arranged; False when it was there. Raises as `place` does."""
        digest = await store.digest_of(transaction, order_id)
        if digest is None:
            quote = arranged or await _quote(transaction, content)
            deadline = self._arrangements.deadline if arranged and self._arrangements else None
            if await store.add(transaction, self._outbox, order_id, content, quote.total, quote.prices, deadline):
                return True
            digest = await store.digest_of(transaction, order_id)  # another call was a moment earlier
        if digest != content.digest(order_id):
            raise OrderReused(f"order {order_id} was placed before, with other content")
        return False

    async def wait(self, order: Order, card_token: str, within: timedelta) -> Order:
        """Return the order when it is no longer PENDING, waits for a person, or `within` has passed."""
        if order.state is not OrderState.PENDING:
            return order
        if order.fulfilment is Fulfilment.CHOREOGRAPHED:
            return await self._watch(order, within)
        try:
            await self._saga.wait(replace(order, card_token=card_token), within)
            order = await self._stored(order.order_id)
            if order.state is OrderState.PENDING:  # the last step did not confirm it
                await self._settle(order)
        except OrchestratorAway as error:
            _log.info(WAIT_ENDED, order_id=order.order_id, why=str(error))
        return await self._stored(order.order_id)

    async def _watch(self, order: Order, within: timedelta) -> Order:
        """Return a choreographed order when it is no longer PENDING, or `within` has passed."""
        loop = asyncio.get_running_loop()
        end, pause = loop.time() + within.total_seconds(), WATCH_FIRST
        while order.state is OrderState.PENDING and (left := end - loop.time()) > 0:
            await asyncio.sleep(min(left, pause.total_seconds()))
            pause = min(pause * 1.5, WATCH_LAST)
            order = await self._stored(order.order_id)
        return order

    async def read(self, order_id: str) -> Order:
        """Read an order, and have it looked after soon if it is PENDING. Raises OrderUnknown."""
        async with self._database.transaction() as transaction:
            order = await store.order_of(transaction, order_id)
            if order.state is OrderState.PENDING:
                await store.wake(transaction, order_id)
        return order

    async def cancel(self, order: Order) -> Order:
        """Ask for the end of an order. One that was rejected is at its end, whatever for.

        Raises OrderClosed, NeighbourAway.
        """
        if order.state is OrderState.PENDING and order.fulfilment is Fulfilment.CHOREOGRAPHED:
            async with self._database.transaction() as transaction:
                await store.reject(transaction, self._outbox, order.order_id, CANCELLED_REASON, CANCELLED)
        elif order.state is OrderState.PENDING:
            await self._cancel_run(order)
        order = await self._stored(order.order_id)
        if order.state in (OrderState.CONFIRMED, OrderState.REFUNDED):
            raise OrderClosed(f"order {order.order_id} is {order.state}")
        return order

    async def _cancel_run(self, order: Order) -> None:
        """Cancel the run of an order; one that may not have been started yet is started first, to have a run to end."""
        try:
            if order.run_id is None:
                await self._start(order, REFUSED_FOR)
                order = await self._stored(order.order_id)
            if order.run_id is not None:
                await self._saga.cancel(order.run_id, CANCELLED_REASON, f"customer {order.customer_id}")
        except RunClosed as error:
            raise OrderClosed(f"order {order.order_id} cannot be stopped any more") from error
        except OrchestratorAway as error:
            raise NeighbourAway("the order cannot be stopped now; ask again") from error
        async with self._database.transaction() as transaction:
            await store.wake(transaction, order.order_id)

    async def follow_up(self, order: Order) -> None:
        """Take the next step of an order that is not finished; when that fails now, the order is due again later."""
        try:
            if order.state is OrderState.PENDING and order.fulfilment is Fulfilment.CHOREOGRAPHED:
                await self._end_late(order)
            elif order.state is OrderState.PENDING and order.card_token is not None:
                await self._start(order, REFUSED_FOR)
            elif order.state is OrderState.PENDING:
                await self._settle(order)
            elif order.state is OrderState.CONFIRMED:
                await self._send(order)
        except (OrchestratorAway, WarehouseAway) as error:
            _log.warning(FOLLOW_UP_POSTPONED, order_id=order.order_id, state=order.state, why=str(error))

    async def _end_late(self, order: Order) -> None:
        """Reject a choreographed order whose deadline has passed. What was done for it is undone upon that event."""
        async with self._database.transaction() as transaction:
            if await store.reject_late(transaction, self._outbox, order.order_id):
                _log.warning(DEADLINE_PASSED, order_id=order.order_id)

    async def _start(self, order: Order, refused_for: timedelta) -> None:
        """Start the saga and note its run. Reject the order when it has been refused for `refused_for`.

        Raises OrchestratorAway.
        """
        try:
            run = await self._saga.start(order)
        except SagaRefused as refusal:
            _log.error(SAGA_REFUSED, order_id=order.order_id, why=str(refusal))
            async with self._database.transaction() as transaction:
                if await store.refused(transaction, order.order_id, refused_for):
                    await store.reject(transaction, self._outbox, order.order_id, "the order could not be processed")
            return
        except KeyReused:
            await self._ask_a_person(order, "the run with the key of this order was begun with other input")
            return
        except OrchestratorAway:
            async with self._database.transaction() as transaction:
                await store.not_refused(transaction, order.order_id)
            raise
        async with self._database.transaction() as transaction:
            await store.started(transaction, order.order_id, run.run_id)

    async def _settle(self, order: Order) -> None:
        """Read the order's run and write down how it ended, if it has. Raises OrchestratorAway."""
        try:
            run = await self._saga.find(order.order_id)
        except RunUnknown:
            await self._ask_a_person(order, f"the orchestrator no longer knows the run {order.run_id} of this order")
            return
        async with self._database.transaction() as transaction:
            await store.started(transaction, order.order_id, run.run_id)
            if run.state == run_pb2.RUN_STATE_COMPENSATED:
                why = run.message or "the order could not be fulfilled"
                code = run.failure.reason or run.failure.cause
                await store.reject(transaction, self._outbox, order.order_id, why, code)
        if run.state == run_pb2.RUN_STATE_COMPLETED:
            await self._complete(order, run)
        elif run.state == run_pb2.RUN_STATE_PARKED:
            await self._ask_a_person(order, f"the run {run.run_id} of this order waits for a decision")
        elif run.state in UNDER_WAY:
            await self._ask_a_person(order, None)

    async def _complete(self, order: Order, run: run_pb2.Run) -> None:
        """Finish an order whose run was completed by a person, who skipped its last step or gave the money back.

        Without a parcel and a payment there is nothing to confirm: then a person has to say what becomes of the order.
        """
        tracking_id, payment_id = _response(run, "ship", "trackingId"), _response(run, "charge", "paymentId")
        if run.amendment == REFUND:
            if _state(run, REFUND) != run_pb2.STEP_STATE_DONE:
                await self._ask_a_person(order, f"the refund in the run {run.run_id} of this order was skipped")
                return
            to_do = f"the money went back: call parcel {tracking_id} off, and put its stock back"
            _log.warning(NEEDS_ATTENTION, order_id=order.order_id, why=to_do)
            async with self._database.transaction() as transaction:
                await store.refund(transaction, self._outbox, order.order_id, to_do)
            return
        if not tracking_id or not payment_id:
            missing = " and ".join(
                what for what, known in (("tracking id", tracking_id), ("payment id", payment_id)) if not known
            )
            await self._ask_a_person(order, f"the run {run.run_id} of this order was completed without a {missing}")
            return
        async with self._database.transaction() as transaction:
            if (await store.order_of(transaction, order.order_id)).state is OrderState.PENDING:
                await store.confirm(transaction, self._outbox, order.order_id, tracking_id, payment_id)

    async def _ask_a_person(self, order: Order, why: str | None) -> None:
        if why == order.attention:
            return
        if why is not None:
            _log.warning(NEEDS_ATTENTION, order_id=order.order_id, why=why)
        async with self._database.transaction() as transaction:
            await store.needs_attention(transaction, order.order_id, why)

    async def _send(self, order: Order) -> None:
        if (
            order.run_id is None and order.fulfilment is Fulfilment.ORCHESTRATED
        ):  # confirmed, but the process that started the run died before it wrote it down
            await self._note_run(order)
        await self._warehouse.dispatch(order.order_id)
        async with self._database.transaction() as transaction:
            await store.dispatched(transaction, self._outbox, order.order_id)

    async def _note_run(self, order: Order) -> None:
        try:
            run = await self._saga.find(order.order_id)
        except RunUnknown:  # confirmed by a person: the parcel is on its way all the same
            return
        async with self._database.transaction() as transaction:
            await store.started(transaction, order.order_id, run.run_id)

    async def _stored(self, order_id: str) -> Order:
        async with self._database.transaction() as transaction:
            return await store.order_of(transaction, order_id)


async def _quote(transaction: "Connection", content: Content) -> Quote:
    """Say what an order costs today. Raises PriceUnknown, CurrenciesMixed, TotalTooLarge."""
    prices = await articles.prices(transaction, [line.sku for line in content.lines])
    return Quote(domain.total(content.lines, prices), prices)


def _state(run: run_pb2.Run, step: str) -> run_pb2.StepState.ValueType:
    return next((status.state for status in run.steps if status.name == step), run_pb2.STEP_STATE_UNSPECIFIED)


def _response(run: run_pb2.Run, step: str, field: str) -> str:
    """Return a field of a step's response, empty when a person skipped that step too."""
    for status in run.steps:
        if status.name == step and field in status.response.fields:
            return status.response.fields[field].string_value
    return ""
