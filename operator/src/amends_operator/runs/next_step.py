"""Decides what is to be done for a SagaRun, from what is so now. Pure: no clock, no API server, no orchestrator.

Each function below is a list of guards, asked in order; the first that holds says what to do. A step that changes
something is followed by another look, so that every decision is made from what is really there.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from amends_chassis.text import escape

from amends.saga.v1 import run_pb2
from amends_operator.kube.statuses import AWAY
from amends_operator.orchestrator import SeenRun
from amends_operator.runs import reports
from amends_operator.runs.decisions import Decision, decision_of
from amends_operator.runs.observed import Missing, Observed
from amends_operator.runs.spec import problems_of
from amends_operator.runs.steps import (
    Acknowledge,
    CarryOut,
    Delete,
    Do,
    Follow,
    Log,
    Look,
    PutFinalizer,
    RecordDecision,
    RefreshSaga,
    RemoveAnnotations,
    RemoveFinalizer,
    Report,
    Rest,
    StartRun,
    TryAgain,
    Undo,
    WriteEvent,
)
from amends_operator.runs.values import exact
from amends_operator.runs.view import has_ended

REFUSED = "runs.refused"
DECIDED = "runs.decision_carried_out"
ABANDONED = "runs.abandoned"
UNDONE = "runs.deleted_before_finalizer"
_NOT_YET = frozenset({"SAGA_UNKNOWN", "SAGA_NOT_READY"})
"""Refusals of a start that may come right without a change of the SagaRun."""


def next_step(seen: Observed) -> Sequence[Do]:
    """Return what is to be done now, in order; without a Rest, Follow or TryAgain at the end, look again after it."""
    if seen.gone:
        return _gone(seen)
    if seen.ended:
        return _ended(seen)
    if seen.deleted:
        return _deleted(seen) if seen.guarded else _gone(seen)
    if seen.suspended:
        return [reports.suspended(seen), Rest()]
    if not seen.run_id and not isinstance(seen.run, SeenRun):
        return _start(seen)
    return _follow(seen)


def unreachable(seen: Observed, why: str) -> Sequence[Report]:
    """Return what the status says while the orchestrator is away; a started run keeps its last known status."""
    return [] if seen.run_id or seen.deleted or seen.gone else [reports.pending(seen, AWAY, why)]


def _gone(seen: Observed) -> Sequence[Do]:
    """Have the run of an object that goes without our finalizer compensated all the same."""
    if seen.guarded or seen.was_released or seen.abandons or seen.ended:
        return [Rest()]
    if seen.has_no_run_of_its_own:
        return [Rest()]
    if seen.run is None:
        return [_look(seen)]
    if isinstance(seen.run, Missing) or has_ended(seen.run.run):
        return [Rest()]
    if seen.answer is not None:
        return [*_undo_refused(seen), Rest()]
    undo = _undo(seen.run.run)
    if not undo:
        return [Rest()]
    return [Log(UNDONE, {"run_id": seen.run.run.run_id}, warning=True), *undo]


def _deleted(seen: Observed) -> Sequence[Do]:
    """Keep a deleted object until its run has ended, is abandoned, or has taken too long."""
    if seen.abandons:
        return _abandon(seen, "onDeletion says so")
    if seen.has_no_run_of_its_own:
        return [RemoveFinalizer(), Rest()]
    if seen.run is None:
        return [_look(seen)]
    if isinstance(seen.run, Missing) or has_ended(seen.run.run):
        return [RemoveFinalizer(), Rest()]
    if seen.overdue:
        return _abandon(seen, f"its compensation has not ended within {seen.limits.deletion_patience}")
    undo = _undo(seen.run.run)
    if undo and seen.answer is None:
        return undo
    return [*_undo_refused(seen), *_report(seen, seen.run), Rest(seen.limits.slowest_look)]


def _undo(run: run_pb2.Run) -> Sequence[Undo]:
    if run.state == run_pb2.RUN_STATE_RUNNING:
        return [Undo(run.run_id, None)]
    if run.state == run_pb2.RUN_STATE_PARKED and "compensate" in run.parked.resolutions:
        return [Undo(run.run_id, run.parked.seq)]
    return []


def _undo_refused(seen: Observed) -> Sequence[WriteEvent]:
    refusal = seen.answer.refusal if seen.answer is not None else None
    if refusal is None:
        return []
    message = f"it cannot be undone now ({refusal.text}); the resource goes when the run has ended"
    return [WriteEvent("CompensationRefused", message, warning=True, once=True)]


def _abandon(seen: Observed, why: str) -> Sequence[Do]:
    message = f"let go without waiting for run {seen.run_id}: {why}; the orchestrator goes on with it"
    return [
        Log(ABANDONED, {"run_id": seen.run_id, "why": why}, warning=True),
        WriteEvent("Abandoned", message, warning=True),
        RemoveFinalizer(),
        Rest(),
    ]


def _start(seen: Observed) -> Sequence[Do]:
    """Start the run, or say why it is not started."""
    if seen.status.get("phase") == "Refused" and seen.is_current and not seen.asks_again:
        return [Rest()]
    problems = problems_of(seen.spec)
    if problems:
        return _refuse(seen, "SpecInvalid", "; ".join(problems))
    if isinstance(seen.run, Missing):
        return [TryAgain(seen.run.why)]
    refusal = seen.answer.refusal if seen.answer is not None else None
    if refusal is None:
        return [StartRun(seen.spec["saga"], seen.run_key, exact(seen.spec.get("input") or {}))]
    if refusal.reason == "KEY_REUSED" and not seen.names_its_key:
        return [_look(seen)]  # the key is ours alone: the input was changed before the start was recorded
    if refusal.reason in _NOT_YET or refusal.not_found:
        return [reports.pending(seen, _condition_reason(refusal.reason), refusal.message), TryAgain(refusal.message)]
    return _refuse(seen, _condition_reason(refusal.reason), refusal.text)


def _refuse(seen: Observed, reason: str, message: str) -> Sequence[Do]:
    return [Log(REFUSED, {"reason": reason}), reports.refused(seen, reason, message), Rest()]


def _follow(seen: Observed) -> Sequence[Do]:
    """Show a run, guard its object while it is under way, and carry a person's decision out."""
    if seen.run is None:
        return [_look(seen)]
    if isinstance(seen.run, Missing):  # never started again: it may have had its effects
        return [reports.lost(seen, seen.run.why), Rest(seen.limits.resync)]
    run = seen.run.run
    if not has_ended(run) and not seen.guarded:
        return [PutFinalizer()]
    decision = decision_of(seen.body)
    if decision is not None:
        return _decide(seen, seen.run, decision)
    if has_ended(run):
        return _report(seen, seen.run)
    return [*_report(seen, seen.run), Follow()]


def _report(seen: Observed, run: SeenRun) -> Sequence[Do]:
    report = reports.followed(seen, run)
    refresh = [RefreshSaga(str(seen.spec.get("saga")))] if reports.phase_is_news(seen, report) else []
    return [*refresh, report]


def _decide(seen: Observed, run: SeenRun, decision: Decision) -> Sequence[Do]:
    """Carry a decision out, record what became of it, and take its annotations off: each once, in this order."""
    if _is_recorded(seen, decision):
        return [RemoveAnnotations(decision.annotations)]
    answer = seen.answer
    if answer is None or not isinstance(answer.to, CarryOut) or answer.to.decision != decision:
        return [CarryOut(decision, run.run.run_id, decision.cancels(run.run))]
    refusal = answer.refusal
    if refusal is None or decision.is_in(run.timeline):  # our process carried it out and died before it recorded that
        return _record(seen, decision, "")
    return _record(seen, decision, refusal.text)


def _is_recorded(seen: Observed, decision: Decision) -> bool:
    return bool((seen.status.get("lastResolution") or {}).get("id") == decision.id)


def _record(seen: Observed, decision: Decision, refusal: str) -> Sequence[Do]:
    facts = {"run_id": seen.run_id, "action": decision.action, "actor": decision.actor, "accepted": not refusal}
    told = escape(f"{decision.action} by {decision.actor}: {decision.reason}")
    event = (
        WriteEvent("DecisionRefused", f"{told}: {refusal}", warning=True) if refusal else WriteEvent("Decided", told)
    )
    return [Log(DECIDED, facts), RecordDecision(reports.resolution(seen, decision, refusal)), event]


def _ended(seen: Observed) -> Sequence[Do]:
    """Answer a decision that came too late; else let the object go, now or when its time has come."""
    decision = decision_of(seen.body) if not seen.deleted else None
    if decision is None:
        return _at_rest(seen)
    if isinstance(seen.run, Missing) and not _is_recorded(seen, decision):
        return _record(seen, decision, seen.run.why)
    if isinstance(seen.run, Missing):
        return [RemoveAnnotations(decision.annotations)]
    return _follow(seen)


def _at_rest(seen: Observed) -> Sequence[Do]:
    steps: list[Do] = []
    if seen.guarded:
        steps.append(RemoveFinalizer())
    elif not seen.is_current or seen.asks_again:
        steps.append(Acknowledge())
    left = None if seen.deleted else seen.left_to_live
    if left is not None and left <= timedelta():
        return [*steps, Delete(), Rest()]
    return [*steps, Rest(left)]


def _look(seen: Observed) -> Look:
    return Look(seen.run_id, seen.run_key)


def _condition_reason(reason: str) -> str:
    """Return SAGA_UNKNOWN as conditions write it: SagaUnknown."""
    return "".join(part.capitalize() for part in reason.split("_")) or "Refused"
