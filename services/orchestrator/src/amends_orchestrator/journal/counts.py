"""Counts runs by what they wait for, for the metrics. The partial indexes of open runs make it cheap."""

from __future__ import annotations

from amends_chassis.database import Executes

from amends_orchestrator.journal.records import State

_COUNTS = f"""
SELECT (SELECT count(*) FROM run WHERE state = {State.PARKED:d}) AS parked,
       (SELECT count(*) FROM run WHERE stalled_since IS NOT NULL) AS stalled,
       (SELECT count(*) FROM run WHERE owner IS NULL AND due_at IS NOT NULL) AS waiting,
       (SELECT count(*) FROM run WHERE owner IS NULL AND due_at IS NOT NULL AND rules > $1) AS newer_rules,
       (SELECT count(*) FROM run WHERE owner IS NOT NULL) AS owned
"""  # noqa: S608 - a number of ours


async def count_runs(database: Executes, rules: int) -> dict[str, int]:
    """Return the number of runs by condition; `rules` is the newest version of the journal's rules known here."""
    return dict(await database.fetchrow(_COUNTS, rules))
