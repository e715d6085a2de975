"""Sends what is due: a task for each webhook, so that one that hangs delays no other.

Every replica does this, and they share the work by taking deliveries under leases. An event is tried with pauses that
double, and parked when it was tried often enough; `410 Gone` parks it at once.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import structlog
from amends_barrier import BROKEN
from amends_chassis.followed import FollowedFile
from amends_resilience import Backoff

from amends_orchestrator.observe import WEBHOOK_ATTEMPTS, WEBHOOK_SECONDS
from amends_orchestrator.webhooks import deliveries
from amends_orchestrator.webhooks.addresses import Lookup, look_up
from amends_orchestrator.webhooks.client import WITHIN, AttemptOutcome, WebhookClient
from amends_orchestrator.webhooks.deliveries import WebhookDelivery
from amends_orchestrator.webhooks.destinations import Destination, Destinations

if TYPE_CHECKING:
    from amends_chassis.database import Pool

AT_ONCE = 4
"""So many events of different keys a replica sends to one webhook at the same time."""
WRITTEN_WITHIN = timedelta(seconds=15)
"""How long it may take to write down what came of an attempt; after that another replica tries again."""
POLL_MIN, POLL_MAX = timedelta(milliseconds=20), timedelta(seconds=1)
LOOK_EVERY = timedelta(seconds=1)
"""How often new and former destinations are looked for."""
PAUSES = Backoff(initial=timedelta(seconds=1), maximum=timedelta(hours=1))

NOT_DELIVERED = "webhooks.not_delivered"
PARKED = "webhooks.parked"
SENDER_FAILED = "webhooks.sender_failed"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Manner:
    """How deliveries are tried; the defaults are for production."""

    within: timedelta = WITHIN
    """How long a look-up may take, and how long everything after it."""
    pauses: Backoff = PAUSES
    look_up: Lookup = look_up
    written_within: timedelta = WRITTEN_WITHIN

    @property
    def lease(self) -> timedelta:
        """Return how long a delivery belongs to who has taken it."""
        return 2 * self.within + self.written_within


@dataclass(slots=True)
class _Sending:
    """What one webhook's task has under way."""

    client: WebhookClient
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there may be something to take."""
    flights: dict[asyncio.Task[None], WebhookDelivery] = field(default_factory=dict)


class WebhookSender:
    """Sends for one replica."""

    def __init__(
        self,
        database: Pool,
        destinations: FollowedFile[Destinations],
        draining: asyncio.Event,
        manner: Manner | None = None,
    ) -> None:
        """Prepare. Once `draining` is set, nothing more is taken, and what is under way comes to its end."""
        self._database = database
        self.destinations = destinations
        self._draining = draining
        self._manner = manner or Manner()
        self._sending: dict[str, _Sending] = {}

    def wanted(self, kind: str, namespace: str, saga: str) -> tuple[str, ...]:
        """Return the webhooks that get an event which is about to be committed, and have it looked for."""
        names = self.destinations.current.wanted(kind, namespace, saga)
        for name in names:
            if (sending := self._sending.get(name)) is not None:
                sending.wake.set()
        return names

    async def attempt(self, destination: Destination, event_id: UUID, body: bytes) -> AttemptOutcome:
        """Send a body once, beside what is due."""
        return await self._client().attempt(destination, event_id, body)

    def _client(self) -> WebhookClient:
        return WebhookClient(self._manner.within, self._manner.look_up)

    async def run(self) -> None:
        """Send until cancelled, to whatever the settings name at the time."""
        tasks: dict[str, asyncio.Task[None]] = {}
        try:
            while not self._draining.is_set():
                names = self.destinations.current.by_name.keys()
                for name in names - tasks.keys():
                    self._sending[name] = _Sending(self._client())
                    tasks[name] = asyncio.create_task(self._serve(name), name=f"webhook {name}")
                for name in tasks.keys() - names:
                    await _end(tasks.pop(name))
                    del self._sending[name]
                await _set_within(self._draining, LOOK_EVERY)
            await asyncio.gather(*tasks.values())
        finally:
            for task in tasks.values():
                await _end(task)

    async def _serve(self, name: str) -> None:
        """Send to one webhook until cancelled or drained."""
        sending = self._sending[name]
        try:
            while not self._draining.is_set():
                try:
                    await self._take_turns(name, sending)
                except Exception as error:  # the database is away, or a fault that the next round may not have
                    _log.warning(SENDER_FAILED, webhook=name, error=f"{type(error).__name__}: {error}")
                    await _set_within(self._draining, POLL_MAX)
            while sending.flights:
                await asyncio.wait(sending.flights)
        finally:
            await self._give_back(sending)

    async def _take_turns(self, name: str, sending: _Sending) -> None:
        pause = POLL_MIN
        while not self._draining.is_set():
            sending.wake.clear()
            room = AT_ONCE - len(sending.flights)
            taken = await deliveries.take(self._database, name, room, self._manner.lease) if room else []
            for delivery in taken:
                self._begin(sending, delivery)
            woken = await _set_within(sending.wake, pause)
            pause = POLL_MIN if taken or woken else min(pause * 2, POLL_MAX)

    def _begin(self, sending: _Sending, delivery: WebhookDelivery) -> None:
        flight = asyncio.create_task(self._deliver(sending.client, delivery), name=f"webhook {delivery.webhook}")
        sending.flights[flight] = delivery

        def landed(flight: asyncio.Task[None]) -> None:
            del sending.flights[flight]
            sending.wake.set()

        flight.add_done_callback(landed)

    async def _deliver(self, client: WebhookClient, delivery: WebhookDelivery) -> None:
        """Try a delivery and write down what came of it; if that fails, it is tried again when the lease is over."""
        destination = self.destinations.current.by_name.get(delivery.webhook)
        if destination is None:
            return
        loop = asyncio.get_running_loop()
        try:
            began = loop.time()
            outcome = await client.attempt(destination, delivery.event.event_id, delivery.body())
            WEBHOOK_SECONDS.labels(webhook=delivery.webhook).observe(loop.time() - began)
            await self._write_down(destination, delivery, outcome)
        except Exception as error:
            _log.error(SENDER_FAILED, webhook=delivery.webhook, error=type(error).__name__, exc_info=error)

    async def _write_down(self, destination: Destination, delivery: WebhookDelivery, outcome: AttemptOutcome) -> None:
        failures = delivery.failures + 1
        told = {"webhook": delivery.webhook, "event_id": str(delivery.event.event_id), "detail": outcome.detail}
        if outcome.delivered:
            await deliveries.delivered(self._database, delivery, outcome.detail)
            result = "delivered"
        elif outcome.gone or failures >= destination.attempts:
            await deliveries.parked(self._database, delivery, outcome.detail)
            _log.error(PARKED, failures=failures, **told)
            result = "parked"
        else:
            pause = max(self._manner.pauses.delay(failures, _half_and_more), outcome.pause)
            await deliveries.failed(self._database, delivery, outcome.detail, pause)
            _log.warning(NOT_DELIVERED, failures=failures, again_in=round(pause.total_seconds(), 3), **told)
            result = "failed"
        WEBHOOK_ATTEMPTS.labels(webhook=delivery.webhook, result=result).inc()

    async def _give_back(self, sending: _Sending) -> None:
        """End what is under way; another replica tries it again at once."""
        left = dict(sending.flights)
        for flight in left:
            await _end(flight)
        if left:
            with suppress(*BROKEN, TimeoutError):
                async with asyncio.timeout(1):
                    await deliveries.give_back(self._database, [*left.values()])


def _half_and_more() -> float:
    return random.uniform(0.5, 1.0)  # noqa: S311 - spreads attempts, no secret


async def _set_within(event: asyncio.Event, within: timedelta) -> bool:
    """Return whether the event was set in time."""
    try:
        async with asyncio.timeout(within.total_seconds()):
            return await event.wait()
    except TimeoutError:
        return False


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
