"""Forgets flows that ended long ago. Started by `assemble`."""

import asyncio
from datetime import timedelta

from amends_chassis.database import Database

EVERY = timedelta(minutes=10)
AT_ONCE = 1_000

_EXPIRE = """
WITH old AS (
    SELECT choreography_id, key FROM flow WHERE state IN (0, 3, 4) AND last_at < now() - $1::interval LIMIT $2
), events AS (
    DELETE FROM flow_event USING old WHERE flow_event.choreography_id = old.choreography_id AND flow_event.key = old.key
)
DELETE FROM flow USING old WHERE flow.choreography_id = old.choreography_id AND flow.key = old.key
"""


async def expire(database: Database, retention: timedelta) -> None:
    """Forget for ever what has ended, `retention` after its last event."""
    while True:
        tag = await database.pool.execute(_EXPIRE, retention, AT_ONCE)
        if int(tag.rpartition(" ")[2]) < AT_ONCE:
            await asyncio.sleep(EVERY.total_seconds())
