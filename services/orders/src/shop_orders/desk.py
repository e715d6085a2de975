"""What the orders service does with an order: accept it, start its saga, learn how that ended, send the goods.

`api.py` calls it for a customer who may be waiting, `followup.py` for every order that nobody is waiting for any more.
Each step leaves the database in a state from which the other one can go on.
"""

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from amends_chassis.database import Database

from amends.saga.v1 import run_pb2
from shop_orders import domain, store
from shop_orders.domain import Content, Order, OrderReused, OrderState
from shop_orders.saga import OrchestratorAway, PlaceOrderSaga, SagaRefused
from shop_orders.warehouse import Warehouse, WarehouseAway

if TYPE_CHECKING:
    from amends_chassis.database import Connection

_log = structlog.get_logger(__name__)

START_POSTPONED = "order.start_postponed"
SAGA_REFUSED = "order.saga_refused"
WAIT_ENDED = "order.wait_ended"
FOLLOW_UP_POSTPONED = "order.follow_up_postponed"


class Desk:
    """Brings orders to their end."""

    def __init__(self, database: Database, saga: PlaceOrderSaga, warehouse: Warehouse) -> None:
        self._database = database
        self._saga = saga
        self._warehouse = warehouse

    async def place(self, order_id: str, content: Content) -> Order:
        """Accept the order, or find it accepted, and start its saga.

        When the orchestrator is away the order is accepted all the same and started by the follow-up.
        Raises OrderReused, PriceUnknown, CurrenciesMixed, TotalTooLarge.
        """
        async with self._database.transaction() as transaction:
            await _accept(transaction, order_id, content)
            order = await store.order_of(transaction, order_id)
        if order.card_token is None:
            return order
        try:
            await self._start(order)
        except OrchestratorAway as error:
            _log.warning(START_POSTPONED, order_id=order_id, why=str(error))
        return await self.read(order_id)

    async def wait(self, order: Order, card_token: str, within: timedelta) -> Order:
        """Return the order when it is no longer PENDING, waits for a person, or `within` has passed."""
        if order.state is not OrderState.PENDING:
            return order
        try:
            await self._settle(order.order_id, await self._saga.end(replace(order, card_token=card_token), within))
        except (OrchestratorAway, SagaRefused) as error:
            _log.info(WAIT_ENDED, order_id=order.order_id, why=str(error))
        return await self.read(order.order_id)

    async def read(self, order_id: str) -> Order:
        """Read an order. Raises OrderUnknown."""
        async with self._database.transaction() as transaction:
            return await store.order_of(transaction, order_id)

    async def follow_up(self, order: Order) -> None:
        """Do what is next for an order that is not finished; when it cannot be done now, it will be due again."""
        try:
            if order.state is OrderState.PENDING and order.card_token is not None:
                await self._start(order)
            elif order.state is OrderState.PENDING:
                await self._settle(order.order_id, await self._saga.find(order.order_id))
            elif order.state is OrderState.CONFIRMED:
                await self._send(order)
        except (OrchestratorAway, WarehouseAway, SagaRefused) as error:
            _log.warning(FOLLOW_UP_POSTPONED, order_id=order.order_id, state=order.state, why=str(error))

    async def _start(self, order: Order) -> None:
        try:
            run = await self._saga.start(order)
        except SagaRefused as refusal:
            _log.error(SAGA_REFUSED, order_id=order.order_id, why=str(refusal))
            async with self._database.transaction() as transaction:
                await store.reject(transaction, order.order_id, "the order could not be processed")
            return
        async with self._database.transaction() as transaction:
            await store.started(transaction, order.order_id, run.run_id)

    async def _settle(self, order_id: str, run: run_pb2.Run) -> None:
        """Write down how the saga ended, if it has."""
        async with self._database.transaction() as transaction:
            await store.started(transaction, order_id, run.run_id)
            if run.state == run_pb2.RUN_STATE_COMPENSATED:
                await store.reject(transaction, order_id, run.message or "the order could not be fulfilled")
            elif run.state == run_pb2.RUN_STATE_COMPLETED:
                await self._complete(transaction, order_id, run)

    async def _complete(self, transaction: "Connection", order_id: str, run: run_pb2.Run) -> None:
        """Confirm an order whose run was completed by a person who skipped its last step."""
        if (await store.order_of(transaction, order_id)).state is OrderState.PENDING:
            tracking_id, payment_id = _response(run, "ship", "trackingId"), _response(run, "charge", "paymentId")
            await store.confirm(transaction, order_id, tracking_id, payment_id)

    async def _send(self, order: Order) -> None:
        if order.run_id is None:  # confirmed before whoever placed it could write that down, and then died
            await self._settle(order.order_id, await self._saga.find(order.order_id))
        await self._warehouse.dispatch(order.order_id)
        async with self._database.transaction() as transaction:
            await store.dispatched(transaction, order.order_id)


async def _accept(transaction: "Connection", order_id: str, content: Content) -> None:
    digest = await store.digest_of(transaction, order_id)
    if digest is None:
        prices = await store.prices(transaction, [line.sku for line in content.lines])
        total = domain.total(content.lines, prices)
        if await store.add(transaction, order_id, content, total, prices):
            return
        digest = await store.digest_of(transaction, order_id)  # another call was a moment earlier
    if digest != content.digest(order_id):
        raise OrderReused(f"order {order_id} was placed before, with other content")


def _response(run: run_pb2.Run, step: str, field: str) -> str:
    """Return a field of a step's response, empty when a person skipped that step too."""
    for status in run.steps:
        if status.name == step and field in status.response.fields:
            return status.response.fields[field].string_value
    return ""
