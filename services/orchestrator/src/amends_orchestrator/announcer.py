"""Makes the events that tell others what happened to runs and definitions; the journal and the store commit them.

One object for a process. Where nobody is told (neither a broker nor a webhook is set) it makes nothing. Events carry
names, states and reasons of ours and of people, never what a caller or a participant has sent.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from amends_events import Outbox
from amends_events.envelope import CORRELATION, TRACEPARENT
from amends_saga.engine import RunState
from amends_saga.engine import events as ev
from amends_saga.plan import Plan
from google.protobuf.message import Message

from amends.events.v1.runs_pb2 import (
    DefinitionChanged,
    RunCancelled,
    RunEnded,
    RunName,
    RunParked,
    RunRecovered,
    RunResolved,
    RunStalled,
    RunStarted,
    RunTurnedBack,
)
from amends_orchestrator.journal.records import RunChange
from amends_orchestrator.journal.telling import Announcement
from amends_orchestrator.runner.ports import RunInfo

SOURCE = "/amends/orchestrator"
PUBLISHES: tuple[type[Message], ...] = (
    RunStarted,
    RunTurnedBack,
    RunCancelled,
    RunParked,
    RunStalled,
    RunRecovered,
    RunResolved,
    RunEnded,
    DefinitionChanged,
)
WAITING = "WAITING"
"""The reason of a run that stalled because one of its steps waits."""
APPLIED, DELETED, READY, NOT_READY, CONTRACT = "applied", "deleted", "ready", "not-ready", "contract"
"""What happens to definitions. CONTRACT: the contract of a Participant is another one."""
KINDS = {"saga": "Saga", "participant": "Participant", "retry_policy": "RetryPolicy"}
"""Kinds of definitions by their tables."""
_LONGEST = 1000


Wanted = Callable[[str, str, str], tuple[str, ...]]
"""Returns the names of the webhooks that want events of a type (its name), of a namespace and a saga there; the saga is
empty for Participants and RetryPolicies."""


class Announcer:
    """Makes the events of one process. Every method returns None when nobody wants to be told."""

    def __init__(self, *, publish: bool = False, wanted: Wanted | None = None, outbox: Outbox | None = None) -> None:
        """Tell the broker, if `publish`, and the webhooks that want it. `outbox` is the one whose relay publishes."""
        self._publish = publish
        self._wanted = wanted
        self._outbox = outbox or Outbox(SOURCE, PUBLISHES)

    def started(self, info: RunInfo, digest: bytes) -> Announcement | None:
        """Tell of a run's first record."""
        return self._run(info, RunStarted(digest=digest.hex())) if self._tells else None

    @property
    def _tells(self) -> bool:
        return self._publish or self._wanted is not None

    def recorded(
        self,
        plan: Plan,
        state: RunState,
        info: RunInfo,
        entry: ev.Recorded,
        change: RunChange | None,
        *,
        stalled: bool,
    ) -> Announcement | None:
        """Tell of a record. `state` is the state after it, `change` what it changes in the run's row.

        `stalled` says whether the row showed that the run is stalled, before the record.
        """
        if not self._tells:
            return None
        told: Message
        match entry.event:
            case ev.Ended(completed):
                decided = state.decided if not completed else None
                told = RunEnded(
                    state="COMPLETED" if completed else "COMPENSATED",
                    reason=decided.reason if decided is not None else "",
                    step=_step(plan, decided.step) if decided is not None else "",
                    skipped_by_person=state.skipped_by_person,
                )
            case ev.Parked(reason, step, _, _):
                told = RunParked(reason=reason, step=_step(plan, step), seq=entry.seq)
            case ev.TurnedBack(reason, step, _, _):
                told = RunTurnedBack(reason=reason, step=_step(plan, step))
            case ev.CancelRequested(actor, reason):
                told = RunCancelled(actor=_short(actor), reason=_short(reason))
            case _ if change is not None and (change.stalled is not None) != stalled:
                told = _stalled(entry.at, change) if change.stalled is not None else RunRecovered()
            case _:
                return None
        return self._run(info, told)

    def resolved(self, plan: Plan, info: RunInfo, event: ev.Resolved) -> Announcement | None:
        """Tell of a person's decision."""
        return self._run(
            info,
            RunResolved(
                resolution=event.action,
                step=_step(plan, event.step),
                actor=_short(event.actor),
                reason=_short(event.reason),
            ),
        )

    def undrivable(self, info: RunInfo, reason: str) -> Announcement | None:
        """Tell of a run that this orchestrator cannot drive, and releases."""
        return self._run(info, RunStalled(reason=reason))

    def definition(
        self, table: str, namespace: str, name: str, change: str, digest: bytes = b""
    ) -> Announcement | None:
        """Tell of a change of what is in force. `table`: saga, participant or retry_policy."""
        kind = KINDS[table]
        full = "/".join((kind, namespace, name))
        event = DefinitionChanged(
            definition=full, kind=kind, namespace=namespace, name=name, change=change, digest=digest.hex()
        )
        saga = name if kind == "Saga" else ""
        return self._told(event, namespace, saga, {CORRELATION: full})

    def _run(self, info: RunInfo, event: Message) -> Announcement | None:
        event.run_id = info.name  # type: ignore[attr-defined] # every event of a run has it
        name = RunName(namespace=info.namespace, saga=info.saga, idempotency_key=info.caller_key)
        event.run.CopyFrom(name)  # type: ignore[attr-defined]
        headers = {CORRELATION: info.name, **({TRACEPARENT: info.traceparent} if info.traceparent else {})}
        return self._told(event, info.namespace, info.saga, headers)

    def _told(self, event: Message, namespace: str, saga: str, headers: dict[str, str]) -> Announcement | None:
        webhooks = self._wanted(event.DESCRIPTOR.name, namespace, saga) if self._wanted is not None else ()
        if not self._publish and not webhooks:
            return None
        return Announcement(self._outbox.row(event, headers), self._publish, webhooks)


NOBODY_IS_TOLD = Announcer()


def _stalled(now: datetime, change: RunChange) -> RunStalled:
    told = RunStalled(reason=WAITING, step=change.step)
    if change.stalled is not None:
        told.since.FromDatetime(now - change.stalled)
    return told


def _step(plan: Plan, index: int | None) -> str:
    return plan.steps[index].name if index is not None else ""


def _short(text: str) -> str:
    return text[:_LONGEST]
