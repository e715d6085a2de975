"""What people decide about events: who, why, and what came of it, in the transaction of what was decided.

`parked`, `replay` and `backlog` write it; it is never changed and never deleted.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

MAX_SAID = 1000


class DecisionKind(StrEnum):
    """What a person can decide."""

    RETRY = "retry"
    SKIP = "skip"
    REPLAY = "replay"
    SKIP_OUTBOX = "skip-outbox"
    REPUBLISH = "republish"


class DecisionError(Exception):
    """What was decided cannot be done as things are. `reason` is stable, for programs; the text is for people."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class DecidedBy:
    """Who decides, and why."""

    actor: str
    """Who they say they are."""
    reason: str
    identity: str = ""
    """Who they are, where that was verified: the identity of a certificate."""

    def __post_init__(self) -> None:
        """Raise ValueError for an actor or a reason that says nothing, or more than MAX_SAID characters."""
        for name, said in (("an actor", self.actor), ("a reason", self.reason)):
            if not said.strip() or len(said) > MAX_SAID or "\0" in said:
                raise ValueError(f"a decision needs {name} of 1 to {MAX_SAID} characters")


@dataclass(frozen=True, slots=True)
class EventDecision:
    """A decision that was made."""

    decision_id: int
    decided_at: datetime
    decision: DecisionKind
    subject: str
    actor: str
    identity: str
    reason: str
    effect: str
    """What it did, for people."""


_NOTE = """
INSERT INTO event_decision (decision, subject, actor, identity, reason, effect, attributes, payload)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""
_LIST = """
SELECT decision_id, decided_at, decision, subject, actor, identity, reason, effect FROM event_decision
WHERE $2::bigint IS NULL OR decision_id < $2 ORDER BY decision_id DESC LIMIT $1
"""


async def note_decision(
    connection: Any,
    decision: DecisionKind,
    subject: str,
    by: DecidedBy,
    effect: str,
    event: tuple[Mapping[str, str], bytes] | None = None,
) -> None:
    """Keep a decision, with the attributes and the payload of an event that nobody else keeps."""
    attributes, payload = (None, None) if event is None else (json.dumps(dict(event[0])), event[1])
    said = (by.actor.strip(), by.identity, by.reason.strip())
    await connection.execute(_NOTE, decision, subject, *said, effect, attributes, payload)


async def list_decisions(connection: Any, limit: int = 100, before: int | None = None) -> list[EventDecision]:
    """Return the newest decisions, at most `limit`; with `before` those that are older than that one."""
    rows = await connection.fetch(_LIST, limit, before)
    return [EventDecision(**{**row, "decision": DecisionKind(row["decision"])}) for row in rows]
