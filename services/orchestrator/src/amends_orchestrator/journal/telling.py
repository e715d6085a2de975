"""Commits events with what they tell of: into the outbox, for the broker, and into the deliveries of webhooks.

An event is written by a statement that is sent anyway, and only if that statement has changed what the event tells of.
The writer has its own form of this in `statements`, for many runs at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amends_events import Row
from amends_events.outbox import COLUMNS


@dataclass(frozen=True, slots=True)
class Announcement:
    """An event, and who is told."""

    row: Row
    publish: bool
    """Whether it goes to the broker."""
    webhooks: tuple[str, ...]
    """The names of the webhooks that it goes to."""

    @property
    def values(self) -> tuple[Any, ...]:
        """Return the last parameters of a statement made by `and_tell`."""
        return (*self.row.values, self.publish, list(self.webhooks))


OUTBOX_COLUMNS = ", ".join((*COLUMNS, "version"))
DELIVERY_COLUMNS = ", ".join((*(name for name in COLUMNS if name not in ("topic", "partition")), "version"))
"""The columns that a delivery has of its event."""


def and_tell(change: str, parameters: int, *, when: str = "true") -> str:
    """Return the statement that makes a change and tells of it: what the change returns is its result.

    `change` has so many parameters; `Announcement.values` follow them. When there is something to tell, it returns a
    row of which `when` is true, with the column `version`: that of what it has changed.
    """
    numbers = {name: f"${parameters + place}::{kind}" for place, (name, kind) in enumerate(COLUMNS.items(), 1)}
    publish, webhooks = parameters + len(COLUMNS) + 1, parameters + len(COLUMNS) + 2
    every = ", ".join(numbers.values())
    some = ", ".join(number for name, number in numbers.items() if name in DELIVERY_COLUMNS.split(", "))
    return f"""
WITH changed AS ({change}), told AS (
    INSERT INTO outbox ({OUTBOX_COLUMNS}) SELECT {every}, version FROM changed WHERE ${publish}::boolean AND {when}
), delivered AS (
    INSERT INTO webhook_delivery (webhook, {DELIVERY_COLUMNS})
    SELECT webhook, {some}, version FROM changed, unnest(${webhooks}::text[]) AS webhook WHERE {when}
)
SELECT * FROM changed
"""  # noqa: S608 - names of ours
