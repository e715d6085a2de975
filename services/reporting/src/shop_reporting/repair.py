"""Gaps in versions are closed by what the service that owns the row exports of that one order.

A gap means that an event was lost on the way, or that a log has it in another order: neither happens while brokers keep
what they have acknowledged. Run beside the projection that serves.
"""

import asyncio
from datetime import timedelta

import structlog
from amends_chassis.database import Database
from amends_chassis.errors import Unavailable
from amends_chassis.projections.exports import ExportClient

from shop_reporting.facts import Fact
from shop_reporting.projection import OrderProjection

LOOK_EVERY = timedelta(seconds=1)
TRY_AGAIN = timedelta(minutes=1)
AT_ONCE = 50

_log = structlog.get_logger(__name__)


class Repair:
    """Closes the gaps of one projection."""

    def __init__(self, database: Database, exports: ExportClient[Fact], projection: OrderProjection) -> None:
        gap = f"{projection.schema}.version_gap"
        self._database = database
        self._exports = exports
        self._projection = projection
        # A retry of what no export has closed yet, one row at a time: replicas beside this one take others.
        self._claim = f"""
        WITH due AS (
            SELECT order_id, source FROM {gap} WHERE tried_at IS NULL OR tried_at < now() - $1::interval
            ORDER BY seen_at LIMIT $2 FOR UPDATE SKIP LOCKED)
        UPDATE {gap} AS g SET tried_at = now() FROM due
        WHERE g.order_id = due.order_id AND g.source = due.source RETURNING g.order_id, g.source
        """  # noqa: S608 - no values

    async def run(self) -> None:
        """Close gaps as they come, for ever."""
        while True:
            if not await self.close():
                await asyncio.sleep(LOOK_EVERY.total_seconds())

    async def close(self) -> int:
        """Ask for the orders that are due, and take in what is exported; return how many were."""
        due = await self._database.pool.fetch(self._claim, TRY_AGAIN, AT_ONCE)
        for row in due:
            try:
                told = await self._exports.one(row["source"], row["order_id"])
            except Unavailable as error:
                _log.warning("repair.export_away", source=row["source"], error=str(error))
                continue
            async with self._database.transaction() as transaction:
                await self._projection.take(transaction, told)
            _log.info("repair.order", source=row["source"], order_id=row["order_id"], facts=len(told))
        return len(due)
