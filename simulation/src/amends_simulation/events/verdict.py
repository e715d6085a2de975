"""Judges a finished world of events by what was committed, what the log has, and what had its effect: law by law.

Called by `world`.
"""

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import TypeAlias
from uuid import UUID

from amends_events import Consumer
from amends_events.laws import EventLaw as Law

from amends_simulation.events.log import LogPlace, SimulatedLog
from amends_simulation.events.process import FOLLOWS, SEES
from amends_simulation.events.tables import EventRow, EventTables
from shop.payments.events.v1.payments_pb2 import PaymentTaken

Standing: TypeAlias = tuple[str, str, int]
"""A consumer, and a partition that it cannot read on."""


def judge(tables: EventTables, log: SimulatedLog, skipped: Set[tuple[str, UUID]]) -> list[str]:
    """Return everything that is wrong."""
    return [*_log(tables, log), *_effects(tables, skipped), *_left(tables)]


def _log(tables: EventTables, log: SimulatedLog) -> Iterator[str]:
    committed = {str(row["event_id"]): row for row in tables.told}
    first: dict[str, None] = {}
    for records in log.records.values():
        first |= dict.fromkeys(record.attributes["id"] for record in records)
    for missing in committed.keys() - first.keys():
        yield Law.PUBLISHED.broken(f"version {committed[missing]['version']} of {committed[missing]['key']} is lost")
    for unknown in first.keys() - committed.keys():
        yield Law.PUBLISHED.broken(f"event {unknown} tells of what was not committed")
    versions: dict[str, list[int]] = {}
    for event_id in first:
        if event_id in committed:
            row = committed[event_id]
            versions.setdefault(row["key"], []).append(row["version"])
    for key, found in versions.items():
        if found != sorted(found):
            yield Law.ORDER.broken(f"{key} is in the log as {found}")


def expected(tables: EventTables, skipped: Set[tuple[str, UUID]]) -> dict[str, list[EventRow]]:
    """Return what each consumer has to have handled, in the order of the commits."""
    taken = str(PaymentTaken.DESCRIPTOR.full_name)
    return {
        consumer: [row for row in tables.told if row["type"] in types and (consumer, row["event_id"]) not in skipped]
        for consumer, types in {FOLLOWS: {taken}, SEES: {row["type"] for row in tables.told}}.items()
    }


def all_seen(tables: EventTables, skipped: Set[tuple[str, UUID]]) -> bool:
    """Return whether every event had its effects, and nothing is left."""
    wanted = sum(map(len, expected(tables, skipped).values()))
    return len(tables.effects) >= wanted and not any(_left(tables))


def _effects(tables: EventTables, skipped: Set[tuple[str, UUID]]) -> Iterator[str]:
    for consumer, events in expected(tables, skipped).items():
        effects = [row for row in tables.effects if row["consumer"] == consumer]
        for key in {row["key"] for row in events} | {row["key"] for row in effects}:
            wanted = [row["version"] for row in events if row["key"] == key]
            had = [row["version"] for row in effects if row["key"] == key]
            if sorted(had) != wanted:
                yield Law.ONE_EFFECT.broken(f"{consumer} had {sorted(had)} of {key} instead of {wanted}")
            elif had != wanted:
                yield Law.EFFECTS_IN_ORDER.broken(f"{consumer} had {had} of {key}")


def _left(tables: EventTables) -> Iterator[str]:
    if rows := tables.table("outbox"):
        yield Law.SEEN.broken(f"{len(rows)} events are in the outbox")
    waiting = sum(row["released_at"] is None for row in tables.table("inbox_parked").values())
    if waiting:
        yield Law.SEEN.broken(f"{waiting} events are parked")


def all_have_begun(tables: EventTables, place: LogPlace) -> bool:
    """Return whether each consumer has read of a partition; one that has not begins at the oldest that there is."""
    read = [row["position"] for key, row in tables.table("inbox_position").items() if key[1:] == place]
    return len(read) == len((FOLLOWS, SEES)) and all(read)


def standing(tables: EventTables, log: SimulatedLog) -> dict[Standing, int]:
    """Return which consumers cannot read on where they are, because the log has forgotten it, and their fences."""
    return {
        (key[0], key[1], key[2]): row["fence"]
        for key, row in tables.table("inbox_position").items()
        if 0 < row["position"] < log.first[key[1:]] - 1
    }


def hidden(standing: Mapping[Standing, int], consumers: Iterable[Consumer]) -> Iterator[str]:
    """Yield which partitions stand still and do not say so, of those that a process reads."""
    for consumer in consumers:
        for partition in consumer.partitions:
            claim = partition.claim
            fence = standing.get((consumer.name, claim.topic, claim.partition))
            if fence == claim.fence and not partition.lost:
                yield Law.POSITION.broken(f"{consumer.name} cannot read on in {claim.partition}, and says nothing")
