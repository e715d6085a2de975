"""Flows in the database, and what is known of one. Called by the judging, and by the API for people."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import TYPE_CHECKING
from uuid import UUID

from amends_saga.choreography import ChoreographyPlan, FlowJudgement, FlowState, Happened, judge

if TYPE_CHECKING:
    from amends_chassis.database import Executes

MOST_EVENTS = 1_000
"""So many events of one flow are looked at: the first ones."""


class StoredState(IntEnum):
    """Where a flow is, apart from the clock, as the column `state` has it; the API has the same numbers."""

    LEFT_OUT = 0
    """The choreography's condition leaves it out."""
    RUNNING = 1
    ENDED_WELL = 3
    ENDED_UNDONE = 4
    CONTRADICTORY = 5


_STATES = {
    FlowState.RUNNING: StoredState.RUNNING,
    FlowState.ENDED_WELL: StoredState.ENDED_WELL,
    FlowState.ENDED_UNDONE: StoredState.ENDED_UNDONE,
    FlowState.CONTRADICTORY: StoredState.CONTRADICTORY,
}

FlowKey = tuple[int, str]
"""The choreography's id, and the key."""


@dataclass(frozen=True, slots=True)
class SeenEvent:
    """An event of a flow that has come."""

    event_id: UUID
    type: str
    source: str
    occurred_at: datetime
    seen_at: datetime
    wanted: bool


@dataclass(frozen=True, slots=True)
class JudgedFlow:
    """A flow with its events, and where it stands."""

    events: Sequence[SeenEvent]
    judgement: FlowJudgement
    state: StoredState

    @property
    def began_at(self) -> datetime:
        """Return when its first event happened."""
        return self.events[0].occurred_at

    @property
    def last_at(self) -> datetime:
        """Return when its last event happened."""
        return self.events[-1].occurred_at

    @property
    def due_at(self) -> datetime | None:
        """Return when the first missing event is due; None when it cannot be late."""
        missing = self.judgement.missing
        return missing[0].due_at if self.state is StoredState.RUNNING and missing else None


def judged(plan: ChoreographyPlan, events: Sequence[SeenEvent]) -> JudgedFlow | None:
    """Return where a flow stands; None without an event that the choreography has."""
    known = [event for event in events if event.type in plan.events]
    if not known:
        return None
    judgement = judge(plan, [Happened(event.type, event.occurred_at) for event in known])
    left_out = any(not event.wanted for event in known)
    return JudgedFlow(known, judgement, StoredState.LEFT_OUT if left_out else _STATES[judgement.state])


_EVENTS = """
SELECT asked.choreography_id, asked.key, event.*
FROM unnest($1::bigint[], $2::text[]) AS asked (choreography_id, key)
CROSS JOIN LATERAL (
    SELECT event_id, type, source, occurred_at, seen_at, wanted FROM flow_event
    WHERE choreography_id = asked.choreography_id AND key = asked.key
    ORDER BY occurred_at, seen_at, event_id LIMIT $3
) AS event
"""


async def read_events(connection: "Executes", keys: Iterable[FlowKey]) -> Mapping[FlowKey, Sequence[SeenEvent]]:
    """Return the events of flows, in the order in which they happened."""
    asked = list(keys)
    rows = await connection.fetch(_EVENTS, [number for number, _ in asked], [key for _, key in asked], MOST_EVENTS)
    found: dict[FlowKey, list[SeenEvent]] = defaultdict(list)
    for row in rows:
        number, key, *event = row.values()
        found[number, key].append(SeenEvent(*event))
    return found


@dataclass(frozen=True, slots=True)
class FlowQuery:
    """Which flows to list; an empty text means all."""

    namespace: str
    name: str
    key: str
    late: bool
    """Whether those that are late are among them."""
    others: Sequence[StoredState]
    """Of those that are not late, which."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a list goes on."""

    as_of: datetime
    """When it was begun: what is late is judged by this, so that no flow changes its place between two pages."""
    late: bool = True
    """Whether it is among those that are late."""
    after: tuple[datetime, int, str] | None = None
    """The last flow of the page before: when it was due, or began, and its key."""


_LATE = """
SELECT f.choreography_id, f.key, f.due_at AS at FROM flow AS f JOIN choreography AS c USING (choreography_id)
WHERE f.due_at < $1 AND ($2 = '' OR c.namespace = $2) AND ($3 = '' OR c.name = $3) AND ($4 = '' OR f.key = $4)
    AND ($5::timestamptz IS NULL OR (f.due_at, f.choreography_id, f.key) > ($5, $6::bigint, $7::text))
ORDER BY f.due_at, f.choreography_id, f.key LIMIT $8
"""
_OTHERS = """
SELECT f.choreography_id, f.key, f.began_at AS at FROM flow AS f JOIN choreography AS c USING (choreography_id)
WHERE f.state <> 0 AND (f.due_at IS NULL OR f.due_at >= $1) AND f.state = ANY($9::smallint[])
    AND ($2 = '' OR c.namespace = $2) AND ($3 = '' OR c.name = $3) AND ($4 = '' OR f.key = $4)
    AND ($5::timestamptz IS NULL OR f.began_at < $5
        OR (f.began_at = $5 AND (f.choreography_id, f.key) > ($6::bigint, $7::text)))
ORDER BY f.began_at DESC, f.choreography_id, f.key LIMIT $8
"""


async def list_keys(
    connection: "Executes", wanted: FlowQuery, cursor: Cursor, grace: timedelta, limit: int
) -> tuple[list[FlowKey], Cursor | None]:
    """Return the keys of a page, and where the next one begins; None when there is none."""
    found: list[tuple[Cursor, FlowKey]] = []
    overdue = cursor.as_of - grace
    for late, query in ((True, _LATE), (False, _OTHERS)):
        if (late and not (cursor.late and wanted.late)) or (not late and not wanted.others) or len(found) > limit:
            continue
        after = cursor.after if cursor.late is late and cursor.after is not None else (None, 0, "")
        arguments = [overdue, wanted.namespace, wanted.name, wanted.key, *after, limit + 1 - len(found)]
        rows = await connection.fetch(query, *arguments, *([] if late else [list(map(int, wanted.others))]))
        for row in rows:
            key = (row["choreography_id"], row["key"])
            found.append((Cursor(cursor.as_of, late, (row["at"], *key)), key))
    following = found[limit - 1][0] if len(found) > limit else None
    return [key for _, key in found[:limit]], following


@dataclass(frozen=True, slots=True)
class FlowCounts:
    """How many flows of a choreography there are."""

    running: int = 0
    late: int = 0
    ended_well: int = 0
    ended_undone: int = 0
    contradictory: int = 0


_COUNT = """
SELECT choreography_id,
    count(*) FILTER (WHERE state = 1 AND (due_at IS NULL OR due_at >= now() - $1::interval)) AS running,
    count(*) FILTER (WHERE due_at < now() - $1::interval) AS late,
    count(*) FILTER (WHERE state = 3) AS ended_well,
    count(*) FILTER (WHERE state = 4) AS ended_undone,
    count(*) FILTER (WHERE state = 5) AS contradictory
FROM flow WHERE state = ANY($2::smallint[]) GROUP BY choreography_id
"""


async def count(
    connection: "Executes", grace: timedelta, states: Sequence[StoredState] = tuple(StoredState)
) -> Mapping[int, FlowCounts]:
    """Return how many flows there are, by choreography; of other states than `states` none."""
    rows = await connection.fetch(_COUNT, grace, list(map(int, states)))
    return {row["choreography_id"]: FlowCounts(*list(row.values())[1:]) for row in rows}
