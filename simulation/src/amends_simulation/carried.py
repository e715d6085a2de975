"""The rows that a statement of the journal's writer carries, read from its text and its parameters.

Called by the database of the simulation, and by the processes of the fault tests that tell what they are writing.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from amends_orchestrator.journal import statements

Rows = list[tuple[Any, ...]]


class Carried(NamedTuple):
    """The rows of each part, with the columns that `statements` names."""

    held: Rows
    rows: Rows
    changes: Rows
    starts: Rows
    events: Rows


def is_batch(sql: str) -> bool:
    """Return whether this is a statement of the writer."""
    return sql.startswith("WITH \n") and ("appended AS" in sql or "started AS" in sql)


def carried(sql: str, parameters: Sequence[Any]) -> Carried:
    """Return the rows of a statement for which `is_batch` is true."""
    left = list(parameters)
    plain = "(VALUES (" in sql

    def take(mark: str, columns: Mapping[str, str]) -> Rows:
        if mark not in sql:
            return []
        taken = left[: len(columns)]
        del left[: len(columns)]
        if plain and columns is not statements.ROW and columns is not statements.EVENT:
            return [tuple(taken)]
        return [*zip(*taken, strict=True)]

    found = Carried(
        held=take("owned AS", statements.HELD),
        rows=take("appended AS", statements.ROW),
        changes=take("changed AS", statements.CHANGE),
        starts=take("started AS", statements.START),
        events=take("told AS", statements.EVENT),
    )
    assert not left, "the writer's statement has parameters that nothing here knows"
    return found
