"""The card network, simulated: approves, declines, fails and dawdles as the test cards ask.

`api.py` asks it before the barrier opens its transaction: a call to the outside holds no connection and no lock. It
only authorises, which is idempotent for an order and lapses when no charge follows; the charge itself is the entry in
the ledger. One card cannot keep the network busy for the others: so many questions about it are under way at once, and
the next is asked again later.
"""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Protocol

from amends_chassis.database import Database

from shop_payments.cards import Behaviour, Card
from shop_payments.domain import CardBusy, CardDeclined, InsufficientFunds, ProcessingError

QUESTIONS_PER_CARD = 64
"""The number of questions about one card that are under way at once."""

FAILING_ATTEMPTS = 2
"""So often a card with processing errors fails for an order before it is approved."""


class Memory(Protocol):
    """Counts how often the network was asked, for charges that failed too."""

    async def attempt(self, order_id: str) -> int:
        """Count one more attempt for the order and return how many there were, from 1."""
        ...


class DurableMemory:
    """The memory in the service's own database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def attempt(self, order_id: str) -> int:
        """Count one more attempt for the order, committed when this returns, and return how many there were."""
        async with self._database.transaction() as transaction:
            attempts = await transaction.fetchval(
                "INSERT INTO network_attempt (order_id, attempts) VALUES ($1, 1)"
                " ON CONFLICT (order_id) DO UPDATE SET attempts = network_attempt.attempts + 1 RETURNING attempts",
                order_id,
            )
        return int(attempts)


class Network:
    """A card network that answers for the banks."""

    def __init__(self, memory: Memory, slow_answer: timedelta) -> None:
        self._memory = memory
        self._slow_answer = slow_answer
        self._under_way: Counter[str] = Counter()

    async def authorise(self, order_id: str, card: Card) -> None:
        """Return when the charge is approved. Raises CardBusy, CardDeclined, InsufficientFunds, ProcessingError."""
        if self._under_way[card.fingerprint] >= QUESTIONS_PER_CARD:
            raise CardBusy("too many charges of this card are under way, try again")
        self._under_way[card.fingerprint] += 1
        try:
            await self._answer(order_id, card)
        finally:
            self._under_way[card.fingerprint] -= 1
            if not self._under_way[card.fingerprint]:
                del self._under_way[card.fingerprint]

    async def _answer(self, order_id: str, card: Card) -> None:
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
