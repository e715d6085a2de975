"""The part of payments in choreographed orders: the card that was kept is charged when stock is, and refunded when
the order fails.

Assembled by `__main__.py`. A handler only writes down that a charge is due: `ChargeWorker` asks the card network, which
may take its time, with no transaction open, and with the order's id as key. When the outcome is unknown it asks again.
"""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog
from amends_barrier import action, compensation
from amends_chassis.database import Database
from amends_chassis.domain import RefusedError
from amends_events import cause, caused_by
from google.protobuf.message import Message

from shop.inventory.events.v1.inventory_pb2 import StockReserved
from shop.orders.events.v1.orders_pb2 import OrderRejected
from shop.shipping.events.v1.shipping_pb2 import ParcelRefused
from shop.types.v1.types_pb2 import FULFILMENT_CHOREOGRAPHED
from shop_payments import store
from shop_payments.cards import Card, kept_card
from shop_payments.domain import CardBusy, DueCharge, ProcessingError
from shop_payments.network import Network

if TYPE_CHECKING:
    from amends_chassis.database import Connection
    from amends_events import CloudEvent, EventHandler, Outbox

AT_ONCE = 64
"""So many questions to the network are under way at once."""
SOON = (0.002, 0.005, 0.01, 0.02, 0.05)
"""A charge that a handler has written down is committed a moment later: pauses, in seconds, between looks for it."""
REMEMBERED = timedelta(days=14)
"""How long a card that expired is remembered: as long as an event may come again."""
FORGET_EVERY = timedelta(minutes=10)
FORGOTTEN_AT_ONCE = 1_000

_log = structlog.get_logger(__name__)

CHARGE_POSTPONED = "charge.postponed"


class ChargeWorker:
    """Charges the cards that are due."""

    def __init__(self, database: Database, outbox: "Outbox", network: Network, every: timedelta) -> None:
        self._database = database
        self._outbox = outbox
        self._network = network
        self._every = every
        self._asking: set[asyncio.Task[None]] = set()
        self.written = asyncio.Event()
        """Set when a charge was made due: it will be committed soon."""

    async def run(self) -> None:
        """Charge what is due, for ever."""
        async with asyncio.TaskGroup() as group:
            while True:
                self.written.clear()
                if not await self._begin(group):
                    await self._rest(group)

    async def forget(self) -> None:
        """Forget cards that expired long ago, for ever."""
        while True:
            async with self._database.transaction() as transaction:
                forgotten = await store.forget_cards(transaction, REMEMBERED, FORGOTTEN_AT_ONCE)
            if forgotten < FORGOTTEN_AT_ONCE:
                await asyncio.sleep(FORGET_EVERY.total_seconds())

    async def _rest(self, group: asyncio.TaskGroup) -> None:
        """Wait until a charge may be due."""
        try:
            async with asyncio.timeout(self._every.total_seconds()):
                await self.written.wait()
        except TimeoutError:
            return
        for pause in SOON:
            if await self._begin(group):
                return
            await asyncio.sleep(pause)

    async def _begin(self, group: asyncio.TaskGroup) -> int:
        """Begin with the charges that are due, as many as may be under way; return how many that were."""
        free = AT_ONCE - len(self._asking)
        if not free:
            return 0
        async with self._database.transaction() as transaction:
            due = await store.claim_due(transaction, free)
        for charge in due:
            task = group.create_task(self.settle(charge))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        return len(due)

    async def settle(self, due: DueCharge) -> None:
        """Ask the network, and commit the charge or the refusal, with the event; leave it due without an answer."""
        with caused_by(due.cause):
            try:
                card = kept_card(due.card_fingerprint)
                await self._network.authorise(due.order_id, card)
            except (CardBusy, ProcessingError) as refusal:
                _log.info(CHARGE_POSTPONED, order_id=due.order_id, why=refusal.reason)
                await self._postpone(due.order_id)
                return
            except RefusedError as refusal:
                await self._refuse(due.order_id, refusal)
                return
            try:
                await self._charge(due, card)
            except RefusedError as refusal:
                await self._refuse(due.order_id, refusal)

    async def _postpone(self, order_id: str) -> None:
        async with self._database.transaction() as transaction:
            await store.postpone(transaction, order_id)

    async def _charge(self, due: DueCharge, card: Card) -> None:
        async with self._database.transaction() as transaction:
            # Called off, charged by another replica, or too late: then the authorisation lapses.
            if await store.end_due(transaction, due.order_id) and await action(transaction, _step(due.order_id)):
                await store.charge(transaction, self._outbox, due.order_id, due.amount, card)

    async def _refuse(self, order_id: str, refusal: RefusedError) -> None:
        async with self._database.transaction() as transaction:
            if await store.end_due(transaction, order_id):
                await store.refuse(transaction, self._outbox, order_id, refusal.reason, str(refusal))


class ChargeReactions:
    """Answers the events of choreographed orders."""

    def __init__(self, outbox: "Outbox", worker: ChargeWorker) -> None:
        self._outbox = outbox
        self._worker = worker

    @property
    def handlers(self) -> "Mapping[type[Message], EventHandler]":
        """Return which event is handled by what."""
        return {StockReserved: self._charge, ParcelRefused: self._refund, OrderRejected: self._follow}

    async def _charge(self, connection: "Connection", event: "CloudEvent", reserved: StockReserved) -> None:
        # An orchestrated order has no card here: its saga brings it along.
        if await store.make_due(connection, reserved.order_id, cause()):
            self._worker.written.set()

    async def _follow(self, connection: "Connection", event: "CloudEvent", rejected: OrderRejected) -> None:
        if rejected.fulfilment == FULFILMENT_CHOREOGRAPHED:
            await self._refund(connection, event, rejected)

    async def _refund(self, connection: "Connection", event: "CloudEvent", failed: Any) -> None:
        """Give the money back, or see to it that it is never taken.

        Raises ChargeDisputed: the event is parked then, and handled again once a person has closed the dispute.
        """
        await store.call_off(connection, failed.order_id)
        if await compensation(connection, _step(failed.order_id)):
            await store.refund(connection, self._outbox, failed.order_id)


def _step(order_id: str) -> str:
    return f"{order_id}/charge"
