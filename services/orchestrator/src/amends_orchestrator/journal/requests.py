"""Requests of people about a run that another process may own: rows that the owner answers.

They are rare, so NOTIFY is affordable here, and only here. A notification is only a hint; the row is the truth, and a
new owner of the run reads the open requests too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from amends_chassis.database import Executes

REQUESTS = "amends_requests"
RESOURCES = "amends_resources"

_ASK = """
WITH asked AS (
    INSERT INTO run_request (run_id, kind, actor, reason) VALUES ($1, $2, $3, $4) RETURNING id
)
SELECT id, pg_notify('amends_requests', $1::text) FROM asked
"""
_OPEN = """
SELECT run_request.id, run_request.run_id, run_request.kind, run_request.actor, run_request.reason
FROM run_request JOIN run ON run.id = run_request.run_id
WHERE run_request.accepted IS NULL AND run.owner = $1 AND run_request.kind = ANY($2)
ORDER BY run_request.id
"""
_OPEN_OF_RUN = """
SELECT kind, actor, reason, asked_at FROM run_request WHERE run_id = $1 AND accepted IS NULL AND kind = ANY($2)
ORDER BY id DESC LIMIT 10
"""
_CANCELS = """
SELECT DISTINCT ON (run_id) id, run_id, actor, reason FROM run_request
WHERE run_id = ANY($1) AND accepted IS NULL AND kind = 'cancel' ORDER BY run_id, id
"""
_ANSWER = "UPDATE run_request SET accepted = $2, answer = $3 WHERE id = $1 AND accepted IS NULL"
_READ = "SELECT accepted, answer FROM run_request WHERE id = $1"


class RequestKind(StrEnum):
    """The kind of a request."""

    CANCEL = "cancel"
    PARK = "park"
    TRY_NOW = "try-now"


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A request as the run's owner reads it."""

    id: int
    run_id: UUID
    kind: RequestKind
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A request without an answer, as people see it."""

    kind: RequestKind
    actor: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class RequestReply:
    """The owner's answer. If it is not accepted, `reason` and `message` say why; else they are empty."""

    accepted: bool
    reason: str = ""
    message: str = ""

    def to_text(self) -> str:
        """Return `REASON: message`, the form of column run_request.answer."""
        return f"{self.reason}: {self.message}" if self.reason else ""

    @classmethod
    def of(cls, accepted: bool, text: str) -> RequestReply:
        """Return the reply that column run_request.answer holds."""
        reason, _, message = text.partition(": ")
        return cls(accepted, reason, message)


async def ask(database: Executes, run_id: UUID, kind: RequestKind, actor: str, reason: str) -> int:
    """Write a request for the owner of a run; return its id."""
    row = await database.fetchrow(_ASK, run_id, kind.value, actor, reason)
    return int(row[0])


async def open_requests(database: Executes, process: UUID) -> list[RunRequest]:
    """Return the requests about the runs that a process owns, oldest first; those of newer kinds are left alone."""
    rows: Sequence[Any] = await database.fetch(_OPEN, process, [kind.value for kind in RequestKind])
    return [RunRequest(row[0], row[1], RequestKind(row[2]), row[3], row[4]) for row in rows]


async def cancels_of(database: Executes, runs: Sequence[UUID]) -> dict[UUID, RunRequest]:
    """Return the first unanswered cancel request of each of these runs that has one."""
    rows: Sequence[Any] = await database.fetch(_CANCELS, runs)
    return {row[1]: RunRequest(row[0], row[1], RequestKind.CANCEL, row[2], row[3]) for row in rows}


async def open_of(database: Executes, run_id: UUID) -> list[Asked]:
    """Return the unanswered requests about a run, oldest first, the last ten."""
    rows: Sequence[Any] = await database.fetch(_OPEN_OF_RUN, run_id, [kind.value for kind in RequestKind])
    return [Asked(RequestKind(row[0]), row[1], row[2], row[3]) for row in reversed(rows)]


async def answer(database: Executes, request_id: int, reply: RequestReply) -> None:
    """Answer a request; if it has an answer already, that one stays."""
    await database.execute(_ANSWER, request_id, reply.accepted, reply.to_text())


async def read_answer(database: Executes, request_id: int) -> RequestReply | None:
    """Return the answer to a request, None while it has none."""
    row = await database.fetchrow(_READ, request_id)
    return RequestReply.of(row[0], row[1]) if row is not None and row[0] is not None else None
