"""What the statements of relay, consumer and their tools do to the simulated tables, told apart by their text.

`simulation/tests/test_events_conformance.py` compares each with Postgres. Called by `world`.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from amends_events import leases, parked, partition, relay

from amends_simulation.events.tables import EventRow, RowKey, SimulatedSession
from amends_simulation.virtual import database_now

TableRows = list[EventRow]
S = SimulatedSession

PAY = "a change of a payment, and its event"
NOTE = "an effect of an event"
_OUTBOX = ("event_id", "topic", "partition", "key", "type", "dataschema", "headers", "payload")


async def _pay(session: S, order_id: str, *values: Any) -> TableRows:
    """Do what a statement of `with_event` does: raise the version under the row's lock, and write the event."""
    row = await session.lock("payment", (order_id,))
    version = 1 if row is None else row["version"] + 1
    session.put("payment", (order_id,), {"version": version})
    seq = session.tables.next("outbox")
    event = dict(zip(_OUTBOX, values, strict=True)) | {"seq": seq, "version": version, "occurred_at": database_now()}
    session.put("outbox", (seq,), event)
    return [{"version": version}]


async def _note(session: S, consumer: str, event_id: UUID, key: str, version: int) -> TableRows:
    number = session.tables.next("effect")
    row = {"consumer": consumer, "event_id": event_id, "key": key, "version": version}
    session.put("effect", (number,), row)
    return []


# ---------------------------------------------------------------- relay


async def _advisory(session: S, one: int, other: int) -> TableRows:
    return [{"locked": session.try_advisory((one, other))}]


async def _read(session: S, topics: list[str], partitions: list[int], lows: list[int], limit: int) -> TableRows:
    found: TableRows = []
    for topic, number, low in zip(topics, partitions, lows, strict=True):
        rows = [
            row
            for _, row in session.all("outbox")
            if row["topic"] == topic and row["partition"] == number and row["seq"] > low
        ]
        found += sorted(rows, key=lambda row: int(row["seq"]))[:limit]
    return found


async def _delete(session: S, seqs: list[int]) -> TableRows:
    for seq in seqs:
        if await session.lock("outbox", (seq,)) is not None:
            session.put("outbox", (seq,), None)
    return []


async def _backlog(session: S, limit: int) -> TableRows:
    rows = sorted((row for _, row in session.all("outbox")), key=lambda row: int(row["seq"]))[:limit]
    now = database_now()
    oldest = max((now - row["occurred_at"] for row in rows), default=timedelta())
    return [{"rows": len(rows), "oldest": oldest}]


# ---------------------------------------------------------------- leases


async def _make(session: S, consumer: str, topics: list[str], partitions: list[int]) -> TableRows:
    for topic, number in zip(topics, partitions, strict=True):
        key = (consumer, topic, number)
        if await session.lock("inbox_position", key) is None:
            row = {"position": 0, "event_id": None, "event_at": None, "owner": None, "fence": 0, "lease_until": None}
            session.put("inbox_position", key, row)
    return []


async def _join(session: S, consumer: str, owner: str, lease: timedelta) -> TableRows:
    await session.lock("inbox_member", (consumer, owner))
    session.put("inbox_member", (consumer, owner), {"lease_until": database_now() + lease})
    return []


async def _forget(session: S, consumer: str) -> TableRows:
    for key, row in list(session.all("inbox_member")):
        if key[0] == consumer and row["lease_until"] < database_now() - timedelta(hours=1):
            session.put("inbox_member", key, None)
    return []


async def _members(session: S, consumer: str) -> TableRows:
    now = database_now()
    return [{"count": sum(key[0] == consumer and row["lease_until"] > now for key, row in session.all("inbox_member"))}]


async def _leave(session: S, consumer: str, owner: str) -> TableRows:
    if await session.lock("inbox_member", (consumer, owner)) is not None:
        session.put("inbox_member", (consumer, owner), None)
    return []


def _owned_by(session: S, consumer: str, owner: str) -> list[RowKey]:
    return [key for key, row in session.all("inbox_position") if key[0] == consumer and row["owner"] == owner]


async def _renew(session: S, consumer: str, owner: str, lease: timedelta) -> TableRows:
    for key in _owned_by(session, consumer, owner):
        if session.free("inbox_position", key):
            row = await session.lock("inbox_position", key)
            assert row is not None
            session.put("inbox_position", key, row | {"lease_until": database_now() + lease})
    return []


async def _owned(session: S, consumer: str, owner: str) -> TableRows:
    keys = _owned_by(session, consumer, owner)
    rows = [(key, session.get("inbox_position", key)) for key in keys]
    return [{"topic": key[1], "partition": key[2], "fence": row["fence"]} for key, row in rows if row is not None]


async def _claim(session: S, consumer: str, owner: str, lease: timedelta, limit: int, topics: list[str]) -> TableRows:
    now = database_now()
    found: TableRows = []
    for key, row in sorted(session.all("inbox_position")):
        gone = row["owner"] is None or row["lease_until"] < now
        mine = key[0] == consumer and key[1] in topics
        if len(found) < limit and mine and gone and session.free("inbox_position", key):
            await session.lock("inbox_position", key)
            taken = row | {"owner": owner, "fence": row["fence"] + 1, "lease_until": now + lease}
            session.put("inbox_position", key, taken)
            place = {"topic": key[1], "partition": key[2]}
            found.append(place | {name: taken[name] for name in ("fence", "position", "event_id")})
    return found


async def _release_claim(session: S, consumer: str, topic: str, number: int, owner: str, fence: int) -> TableRows:
    key = (consumer, topic, number)
    row = await session.lock("inbox_position", key)
    if row is not None and row["owner"] == owner and row["fence"] == fence:
        session.put("inbox_position", key, row | {"owner": None, "lease_until": None})
    return []


# ---------------------------------------------------------------- partitions


async def _advance(
    session: S,
    consumer: str,
    topic: str,
    number: int,
    position: int,
    event_id: UUID | None,
    event_at: datetime | None,
    fence: int,
    ids: list[UUID],
) -> TableRows:
    key = (consumer, topic, number)
    row = await session.lock("inbox_position", key)
    if row is None or row["fence"] != fence:
        return [{"mine": False, "fresh": []}]
    session.put("inbox_position", key, row | {"position": position, "event_id": event_id, "event_at": event_at})
    fresh = []
    for one in ids:
        if await session.lock("inbox", (consumer, one)) is None:
            session.put("inbox", (consumer, one), {"at": database_now()})
            fresh.append(one)
    return [{"mine": True, "fresh": fresh}]


async def _mine(session: S, consumer: str, topic: str, number: int, fence: int) -> TableRows:
    row = await session.lock("inbox_position", (consumer, topic, number))
    return [{"mine": True}] if row is not None and row["fence"] == fence else []


# ---------------------------------------------------------------- parked events


def _waiting(session: S, place: RowKey) -> list[tuple[RowKey, EventRow]]:
    """Return the open parked events of a partition, by their positions."""
    found = [(k, row) for k, row in session.all("inbox_parked") if k[:3] == place and row["released_at"] is None]
    return sorted(found, key=lambda one: int(one[0][3]))


async def _blocked(session: S, *place: Any) -> TableRows:
    return [{"key": key} for key in dict.fromkeys(row["key"] for _, row in _waiting(session, place))]


async def _taken(session: S, *values: Any) -> TableRows:
    waiting = {key[3]: row for key, row in _waiting(session, values[:3])}
    for position, event_id, payload in zip(*values[3:], strict=True):
        there = waiting.get(position)
        if there is not None and (there["event_id"] != event_id or (event_id is None and there["payload"] != payload)):
            return [{"exists": True}]
    return [{"exists": False}]


async def _make_room(session: S, *place: Any) -> TableRows:
    positions = [key[3] for key, _ in session.all("inbox_parked") if key[:3] == place]
    width = max(max(positions), max(positions) - min(positions) + 1)
    for key, row in _waiting(session, place):
        await session.lock("inbox_parked", key)
        session.put("inbox_parked", key, None)
        session.put("inbox_parked", (*place, key[3] - width), row)
    return []


async def _park(session: S, *values: Any) -> TableRows:
    key = values[:4]
    names = ("event_id", "key", "type", "attributes", "payload", "reason", "detail", "attempts")
    there = await session.lock("inbox_parked", key)
    if there is None or there["released_at"] is not None:
        row = dict(zip(names, values[4:], strict=True))
        session.put("inbox_parked", key, row | {"decision": None, "released_at": None})
    return []


async def _decided(session: S, *place: Any) -> TableRows:
    first: dict[str, EventRow] = {}
    for _, row in _waiting(session, place):
        first.setdefault(row["key"], row)
    return [
        {"key": key}
        for key, row in first.items()
        if row["decision"] is not None or row["reason"] == parked.ParkedReason.AFTER
    ]


async def _first(session: S, consumer: str, topic: str, number: int, key: str) -> TableRows:
    for place, row in _waiting(session, (consumer, topic, number)):
        if row["key"] == key:
            locked = await session.lock("inbox_parked", place)
            if locked is None or locked["released_at"] is not None:
                return []
            kept = {name: locked[name] for name in ("attributes", "payload", "reason", "decision")}
            return [{"position": place[3], **kept}]
    return []


async def _change_parked(session: S, place: RowKey, change: Callable[[EventRow], EventRow]) -> TableRows:
    row = await session.lock("inbox_parked", place)
    if row is not None:
        session.put("inbox_parked", place, row | change(row))
    return []


async def _release_parked(session: S, *values: Any) -> TableRows:
    now = database_now()
    return await _change_parked(
        session, values[:4], lambda row: {"released_at": now, "attempts": row["attempts"] + values[4]}
    )


async def _again(session: S, *values: Any) -> TableRows:
    reason, detail, attempts = values[4:]
    return await _change_parked(
        session,
        values[:4],
        lambda row: {
            "reason": reason,
            "detail": detail,
            "attempts": row["attempts"] + attempts,
            "decision": None,
        },
    )


async def _decide(session: S, *values: Any) -> TableRows:
    return await _change_parked(session, values[:4], lambda _: {"decision": values[4]})


STATEMENTS: dict[str, Callable[..., Awaitable[TableRows]]] = {
    PAY: _pay,
    NOTE: _note,
    "SELECT pg_try_advisory_lock($1, $2)": _advisory,
    relay._READ: _read,
    relay._DELETE: _delete,
    relay._BACKLOG: _backlog,
    leases._MAKE: _make,
    leases._JOIN: _join,
    leases._FORGET: _forget,
    leases._MEMBERS: _members,
    leases._LEAVE: _leave,
    leases._RENEW: _renew,
    leases._OWNED: _owned,
    leases._CLAIM: _claim,
    leases._RELEASE: _release_claim,
    partition._ADVANCE: _advance,
    partition._MINE: _mine,
    parked._BLOCKED: _blocked,
    parked._TAKEN: _taken,
    parked._MAKE_ROOM: _make_room,
    parked._PARK: _park,
    parked._DECIDED: _decided,
    parked._FIRST: _first,
    parked._RELEASE: _release_parked,
    parked._AGAIN: _again,
    parked._DECIDE: _decide,
}
