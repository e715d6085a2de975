"""Judges flows that have a new event, or whose choreography has changed. Started by `assemble`.

One replica at a time does it, under an advisory lock of the transaction: then no two judge one flow by different
events, and whoever comes next goes on when a replica dies.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from amends_chassis.database import Database

from amends_monitor.definitions import ALONE, Definitions, WatchedChoreography
from amends_monitor.flows import FlowKey, JudgedFlow, judged, read_events

if TYPE_CHECKING:
    from amends_chassis.database import Connection

BATCH = 500
POLL = timedelta(milliseconds=250)
"""How often to look for what other replicas have read."""
COMMITTED_SOON = timedelta(milliseconds=5)
"""Events are written down a moment before they are committed."""

# What a replica knows in another version than the database has is left to those that know it, or until it does.
_TAKE = """
DELETE FROM flow_changed WHERE seq IN (
    SELECT changed.seq FROM flow_changed AS changed JOIN choreography AS c USING (choreography_id)
        JOIN unnest($2::bigint[], $3::text[]) AS known (choreography_id, digest)
        ON known.choreography_id = c.choreography_id AND known.digest = c.digest
    ORDER BY changed.seq LIMIT $1
) RETURNING choreography_id, key
"""
_PUT = """
INSERT INTO flow (choreography_id, key, state, began_at, last_at, due_at)
SELECT found.* FROM unnest($1::bigint[], $2::text[], $3::smallint[], $4::timestamptz[], $5::timestamptz[],
    $6::timestamptz[]) AS found (choreography_id, key, state, began_at, last_at, due_at)
    JOIN choreography USING (choreography_id)
ON CONFLICT (choreography_id, key) DO UPDATE SET
    state = excluded.state, began_at = excluded.began_at, last_at = excluded.last_at, due_at = excluded.due_at
"""
_DROP = """
DELETE FROM flow USING unnest($1::bigint[], $2::text[]) AS gone (choreography_id, key)
WHERE flow.choreography_id = gone.choreography_id AND flow.key = gone.key
"""


class Judging:
    """Judges what has changed."""

    def __init__(self, database: Database, definitions: Definitions) -> None:
        self._database = database
        self._definitions = definitions
        self.changed = asyncio.Event()
        """Set when this process has written events down."""

    async def run(self) -> None:
        """Judge for ever, at once when this process has read something."""
        while True:
            self.changed.clear()
            if await self.once() == BATCH:
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL.total_seconds()):
                    await self.changed.wait()
                    await asyncio.sleep(COMMITTED_SOON.total_seconds())

    async def once(self) -> int:
        """Judge up to BATCH changes; return how many there were. Another replica that judges leaves none."""
        async with self._database.transaction() as transaction:
            if not await transaction.fetchval("SELECT pg_try_advisory_xact_lock($1)", ALONE):
                return 0
            known = dict(self._definitions.known)
            digests = [one.digest for one in known.values()]
            rows = await transaction.fetch(_TAKE, BATCH, list(known), digests)
            await self._judge(transaction, known, sorted({(row["choreography_id"], row["key"]) for row in rows}))
            return len(rows)

    async def _judge(
        self, transaction: "Connection", known: Mapping[int, WatchedChoreography], keys: list[FlowKey]
    ) -> None:
        """Write where these flows stand."""
        events = await read_events(transaction, keys)
        put: list[tuple[FlowKey, JudgedFlow]] = []
        empty = [key for key in keys if key not in events]
        for key, seen in events.items():
            flow = judged(known[key[0]].plan, seen)
            if flow is None:
                empty.append(key)
            else:
                put.append((key, flow))
        if put:
            columns = [(*key, int(flow.state), flow.began_at, flow.last_at, flow.due_at) for key, flow in put]
            await transaction.execute(_PUT, *map(list, zip(*columns, strict=True)))
        if empty:
            await transaction.execute(_DROP, *map(list, zip(*empty, strict=True)))
