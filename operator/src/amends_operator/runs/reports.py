"""Builds the statuses of SagaRuns as values: while a run is followed, waits, rests or cannot be started. Pure."""

from __future__ import annotations

from typing import Any

from amends_chassis.text import escape

from amends_operator.kube.conditions import Condition, condition_of, stamp
from amends_operator.kube.objects import HANDLED
from amends_operator.kube.statuses import AWAY, carried
from amends_operator.orchestrator import SeenRun
from amends_operator.runs.decisions import Decision
from amends_operator.runs.observed import Observed
from amends_operator.runs.spec import problems_of
from amends_operator.runs.steps import Report
from amends_operator.runs.values import digest_of
from amends_operator.runs.view import ENDED, LONGEST, conditions_of, fields_of, timeline_of

_LOST = "Unknown"
_KEPT = ("runId", "digest", "startedAt", "steps", "timeline", "inputDigest", "lastResolution")
_LONGEST_PENDING = 300


def followed(seen: Observed, run: SeenRun) -> Report:
    """Return the status that shows a run as it is."""
    fields = fields_of(run.run)
    fields["timeline"] = timeline_of(run.timeline)
    given = digest_of(seen.spec.get("input") or {})
    fields["inputDigest"] = seen.status.get("inputDigest") or given
    fields["lastResolution"] = seen.status.get("lastResolution")
    fields[HANDLED] = seen.asked
    accepted = _accepted(seen, same_input=fields["inputDigest"] == given)
    return Report(fields, conditions_of(run.run, accepted), event_conditions(fields["phase"]))


def _accepted(seen: Observed, *, same_input: bool) -> Condition:
    problems = problems_of(seen.spec)
    if not same_input:
        message = "spec.input was changed after the start: the run goes on with what it was started with"
        return Condition("Accepted", True, "InputChangeIgnored", message)
    if problems:
        return Condition("Accepted", True, "ChangeIgnored", "; ".join(problems))
    if seen.deleted:
        return Condition("Accepted", True, "Deleting", "deleted: the resource goes when the run has ended")
    return Condition("Accepted", True, "Accepted", "the orchestrator took it")


def event_conditions(phase: str) -> tuple[str, ...]:
    """Return the conditions whose transitions people should hear of; a run that completes is quiet."""
    if phase == "Compensated":
        return ("Ready",)
    return ("Stalled",) if phase in ("Running", "Compensating", "Parked") else ()


def phase_is_news(seen: Observed, report: Report) -> bool:
    """Return whether the Saga counts its runs differently now; one that ended at once was never counted."""
    phase, former = report.fields["phase"], seen.status.get("phase")
    return phase != former and not (phase in ENDED and not former)


def suspended(seen: Observed) -> Report:
    """Return the status of a suspended SagaRun: Suspended before its start, else what was last known of its run."""
    started = bool(seen.run_id)
    message = "the run goes on and is not shown" if started else "it is not started"
    message = f"spec.suspend is true: {message}"
    shown = [condition_of(found) for found in (seen.status.get("conditions") or [] if started else [])]
    conditions = [condition for condition in shown if condition.type != "Ready"]
    fields = dict(seen.status) if started else {"phase": "Suspended", "message": message}
    return Report(fields, [*conditions, Condition("Ready", None, "Suspended", message)])


def pending(seen: Observed, reason: str, why: str) -> Report:
    """Return the status of a SagaRun that cannot be started yet."""
    conditions = [
        Condition("Accepted", False if reason != AWAY else None, reason, why),
        Condition("Ready", False, reason, why),
        Condition("Reconciling", True, reason, why),
    ]
    fields = {"phase": "Pending", "message": why[:_LONGEST_PENDING], **carried(seen.body, (HANDLED,))}
    return Report(fields, conditions)


def refused(seen: Observed, reason: str, message: str) -> Report:
    """Return the status of a SagaRun that cannot be started as it is."""
    conditions = [Condition(kind, False, reason, message) for kind in ("Accepted", "Ready")]
    fields = {"phase": "Refused", "message": message[:LONGEST], HANDLED: seen.asked}
    return Report(fields, conditions, ("Ready",))


def lost(seen: Observed, why: str) -> Report:
    """Return the status of a SagaRun whose run the orchestrator does not know any more."""
    message = f"the orchestrator does not know the run any more: {why}"
    kept = {**carried(seen.body, _KEPT), HANDLED: seen.asked}
    conditions = [
        Condition("Accepted", True, "Accepted", "the orchestrator took it"),
        Condition("Ready", False, "RunUnknown", message),
        Condition("Stalled", True, "RunUnknown", message),
    ]
    return Report({**kept, "phase": _LOST, "message": message}, conditions, ("Stalled",))


def resolution(seen: Observed, decision: Decision, refusal: str) -> dict[str, Any]:
    """Return what status.lastResolution says of a decision; an empty `refusal` means that it was carried out."""
    entry = {
        "id": decision.id,
        "action": decision.action,
        "reason": escape(decision.reason)[:LONGEST],
        "actor": escape(decision.actor)[:LONGEST],
        "accepted": not refusal,
        "at": stamp(seen.now),
    }
    return entry | ({"message": refusal[:LONGEST]} if refusal else {})
