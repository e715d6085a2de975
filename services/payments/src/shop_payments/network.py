"""The card network, simulated: approves, declines, fails and dawdles as the test cards ask.

`api.py` asks it before it writes anything. The real thing would be a call to the outside, which no transaction can
take back: such a handler keeps an outbox or is not guarded. This one has no effect but to remember how often it was
asked, which must survive the rollback of a failed charge and a restart, hence the connection of its own. It opens one
for each question instead of taking one from the pool: its caller holds one of those, and if all callers waited for a
second the pool would be empty for ever.
"""

import asyncio
from datetime import timedelta
from typing import Protocol

from amends_chassis.database import Database

from shop_payments.cards import Behaviour, Card
from shop_payments.domain import CardDeclined, InsufficientFunds, ProcessingError

FAILING_ATTEMPTS = 2
"""So often a card with processing errors fails for an order before it is approved."""


class Memory(Protocol):
    """Remembers, whatever becomes of the caller's transaction, how often the network was asked."""

    async def attempt(self, order_id: str) -> int:
        """Count one more attempt for the order and return how many there were, from 1."""
        ...


class DurableMemory:
    """The memory in the service's own database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def attempt(self, order_id: str) -> int:
        """Count one more attempt for the order, committed when this returns, and return how many there were."""
        connection = await self._database.open_connection()
        try:
            attempts = await connection.fetchval(
                "INSERT INTO network_attempt (order_id, attempts) VALUES ($1, 1)"
                " ON CONFLICT (order_id) DO UPDATE SET attempts = network_attempt.attempts + 1 RETURNING attempts",
                order_id,
            )
            return int(attempts)
        finally:
            await connection.close()


class Network:
    """Answers for the banks."""

    def __init__(self, memory: Memory, slow_answer: timedelta) -> None:
        self._memory = memory
        self._slow_answer = slow_answer

    async def authorise(self, order_id: str, card: Card) -> None:
        """Return when the charge is approved. Raises CardDeclined, InsufficientFunds, ProcessingError."""
        match card.behaviour:
            case Behaviour.APPROVED:
                return
            case Behaviour.DECLINED:
                raise CardDeclined("the card was declined")
            case Behaviour.INSUFFICIENT_FUNDS:
                raise InsufficientFunds("the card has insufficient funds")
            case Behaviour.PROCESSING_ERROR:
                if await self._memory.attempt(order_id) <= FAILING_ATTEMPTS:
                    raise ProcessingError("the card network could not process the charge, try again")
            case Behaviour.SLOW:
                if await self._memory.attempt(order_id) == 1:
                    await asyncio.sleep(self._slow_answer.total_seconds())
