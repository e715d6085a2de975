"""Housekeeping: creates and drops journal partitions, deletes dead processes' rows, and counts waiting runs.

Background tasks of every replica; advisory locks let one work at a time.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog
from amends_chassis.database import Executes, Lends
from amends_saga.journal import RULES_VERSION

from amends_orchestrator.journal import leases
from amends_orchestrator.journal.counts import count_runs
from amends_orchestrator.journal.partitions import drop_old, make_partitions
from amends_orchestrator.observe import RUNS_WAITING, WEBHOOK_OLDEST, WEBHOOK_WAITING
from amends_orchestrator.webhooks import deliveries
from amends_orchestrator.webhooks.sender import WebhookSender

PARTITIONS_DROPPED = "journal.partitions_dropped"
HOUSEKEEPING_EVERY = timedelta(minutes=15)
FORGOTTEN_AT_ONCE = 1000
COUNT_EVERY = timedelta(seconds=10)
_log = structlog.get_logger(__name__)


async def housekeeping(pool: Lends, retention: timedelta) -> None:
    """Keep partitions and leases in order for ever. Raises the database's errors; the caller starts it again."""
    while True:
        async with pool.acquire() as connection:
            await make_partitions(connection)
            await leases.forget(connection)
            dropped = await drop_old(connection, retention)
        if dropped:
            _log.info(PARTITIONS_DROPPED, partitions=dropped)
        await asyncio.sleep(HOUSEKEEPING_EVERY.total_seconds())


async def counting_webhooks(database: Executes, sender: WebhookSender) -> None:
    """Count what webhooks have not taken, for ever."""
    while True:
        for one in await deliveries.count(database, sender.destinations.current.by_name):
            WEBHOOK_WAITING.labels(webhook=one.webhook, state=one.state).set(one.events)
            WEBHOOK_OLDEST.labels(webhook=one.webhook, state=one.state).set(one.waits.total_seconds())
        await asyncio.sleep(COUNT_EVERY.total_seconds())


async def forgetting_webhooks(database: Executes, sender: WebhookSender | None, retention: timedelta) -> None:
    """Forget what webhooks were sent once it is old, for ever."""
    while True:
        await deliveries.wake(database)
        named = sender.destinations.current.by_name if sender is not None else ()
        if await deliveries.expire(database, retention, named, FORGOTTEN_AT_ONCE) < FORGOTTEN_AT_ONCE:
            await asyncio.sleep(HOUSEKEEPING_EVERY.total_seconds())


async def counting(database: Executes) -> None:
    """Count parked, stalled and waiting runs for ever; the partial indexes make it cheap."""
    while True:
        for condition, count in (await count_runs(database, RULES_VERSION)).items():
            RUNS_WAITING.labels(condition=condition).set(count)
        await asyncio.sleep(COUNT_EVERY.total_seconds())
