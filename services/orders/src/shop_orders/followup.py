"""The loop that completes every order, also after processes died. `assemble.py` runs it in every replica.

It takes what is due from the database, several orders side by side, and never holds a transaction while it waits for
another service.
"""

import asyncio
from typing import Protocol

from amends_chassis.database import Database

from shop_orders import store
from shop_orders.domain import Order
from shop_orders.settings import Settings

BATCH = 16


class AdvancesOrder(Protocol):
    """Takes the next step of an order."""

    async def follow_up(self, order: Order) -> None:
        """Take the order's next step, or leave it for the next time."""
        ...


class FollowUp:
    """Follows up on unfinished orders."""

    def __init__(self, database: Database, orders: AdvancesOrder, settings: Settings) -> None:
        self._database = database
        self._orders = orders
        self._every = settings.follow_up_every
        self._at_most = settings.follow_up_at_most
        self._waiting_at_most = settings.follow_up_waiting_at_most

    async def run(self) -> None:
        """Follow up open orders for ever, once per interval."""
        while True:
            if await self.once() < BATCH:
                await asyncio.sleep(self._every.total_seconds())

    async def once(self) -> int:
        """Follow up on the orders that are due, at most a batch; return how many there were."""
        async with self._database.transaction() as transaction:
            orders = await store.claim_due(transaction, BATCH, self._at_most, self._waiting_at_most)
        async with asyncio.TaskGroup() as group:
            for order in orders:
                group.create_task(self._orders.follow_up(order))
        return len(orders)
