"""Reconciles SagaRuns: one look at the object and one at its run decide what is to be done now.

A run that ends within `quick` is written once. A slower one gets the finalizer first, then its status at every look
that finds something new; looks grow rarer while nothing happens. Called by the work queue.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import structlog
from amends_resilience import Backoff

from amends.saga.v1 import run_pb2
from amends_operator.kube.client import ApiError, Client, ConflictError, NotFoundError
from amends_operator.kube.conditions import Condition, condition_of
from amends_operator.kube.events import Events
from amends_operator.kube.objects import HANDLED, Body, Key, Kind, Objects, asked_of, asks_again, generation_of
from amends_operator.kube.statuses import AWAY, Statuses, carried
from amends_operator.orchestrator import AwayError, Orchestrator, RefusedError, Seen
from amends_operator.queue import Again
from amends_operator.runs.decisions import Decision, decision_of
from amends_operator.runs.deletion import FINALIZER, Deletion
from amends_operator.runs.spec import problems_of
from amends_operator.runs.values import digest_of, duration, exact, is_duration, run_key
from amends_operator.runs.view import ENDED, LONGEST, conditions_of, fields_of, has_ended, timeline_of

REFUSED = "runs.refused"
DECIDED = "runs.decision_carried_out"
UNSAID = "runs.status_postponed"
_WAITING = frozenset({"SAGA_UNKNOWN", "SAGA_NOT_READY"})
"""Refusals of a start that may come right without a change of the SagaRun."""
_LOST = "Unknown"
_KEPT = ("runId", "digest", "startedAt", "steps", "timeline", "inputDigest", "lastResolution")
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RunLimits:
    """How patient the reconciler is."""

    quick: timedelta
    slowest_look: timedelta
    ttl: timedelta | None
    resync: timedelta


class RunReconciler:
    """Brings SagaRuns and runs together."""

    def __init__(
        self,
        client: Client,
        objects: Objects,
        statuses: Statuses,
        orchestrator: Orchestrator,
        deletion: Deletion,
        events: Events,
        limits: RunLimits,
        poke_soon: Callable[[Key], None],
    ) -> None:
        self._client = client
        self._objects = objects
        self._statuses = statuses
        self._orchestrator = orchestrator
        self._deletion = deletion
        self._events = events
        self._limits = limits
        self._poke_soon = poke_soon
        self._looks = Backoff(initial=timedelta(milliseconds=250), maximum=limits.slowest_look, multiplier=1.5)
        self._unchanged: dict[str, int] = {}

    async def reconcile(self, key: Key) -> timedelta | None:
        """Does what the object as it is now needs. Raises Again when somebody is away."""
        body = self._objects.get(key)
        try:
            await self._deletion.vanished(key)
            if body is None:
                self._unchanged.pop(key.full_name, None)
                return None
            return await self._reconcile(key, body)
        except AwayError as error:
            if body is not None:
                await self._waiting(key, body, AWAY, str(error))
            raise Again(str(error)) from None
        except NotFoundError:
            self._objects.vanished(Kind.RUN, body) if body is not None else None
            return None
        except ConflictError as error:
            await self._read_again(key, body)
            raise Again(str(error), timedelta(milliseconds=50)) from None
        except (ApiError, RefusedError) as error:
            raise Again(str(error)) from None

    async def _read_again(self, key: Key, body: Body | None) -> None:
        try:
            self._objects.written(Kind.RUN, await self._client.read(key))
        except NotFoundError:
            if body is not None:
                self._objects.vanished(Kind.RUN, body)
        except ApiError as error:
            raise Again(str(error)) from None

    async def _reconcile(self, key: Key, body: Body) -> timedelta | None:
        status, spec = body.get("status") or {}, body.get("spec") or {}
        deleted = "deletionTimestamp" in body["metadata"]
        if "endedAt" in status and status.get("phase") in ENDED:
            decision = decision_of(body, run_pb2.Run())
            if decision is None or deleted:
                return await self._at_rest(key, body, deleted)
            try:
                return await self._follow(key, body, await self._orchestrator.run(status["runId"]))
            except RefusedError as error:
                if error.code is not grpc.StatusCode.NOT_FOUND:
                    raise
                body = await self._record(key, body, self._settled(decision, f"{error.reason}: {error}"))
                return await self._at_rest(key, await self._take_off(key, body, decision), False)
        if deleted:
            if FINALIZER not in (body["metadata"].get("finalizers") or []):
                await self._deletion.unguarded(key, body)
                return None
            seen = await self._deletion.look(key, body)
            if seen is None:
                return None
            await self._show(key, body, seen, waits=True)
            return self._limits.slowest_look
        if spec.get("suspend"):
            await self._suspended(key, body)
            return None
        if not status.get("runId"):
            return await self._start(key, body)
        try:
            seen = await self._orchestrator.run(status["runId"])
        except RefusedError as error:
            if error.code is not grpc.StatusCode.NOT_FOUND:
                raise
            await self._lost(key, body, str(error))
            return self._limits.resync
        return await self._follow(key, body, seen)

    async def _start(self, key: Key, body: Body) -> timedelta | None:
        status, spec = body.get("status") or {}, body["spec"]
        same = status.get("observedGeneration") == generation_of(body)
        if status.get("phase") == "Refused" and same and not asks_again(body):
            return None
        problems = problems_of(spec)
        if problems:
            await self._refuse(key, body, "SpecInvalid", f"{'; '.join(problems)}")
            return None
        uid = body["metadata"]["uid"]
        try:
            seen = await self._orchestrator.start(
                key.namespace, spec["saga"], run_key(uid), exact(spec.get("input") or {}), self._limits.quick
            )
        except RefusedError as error:
            if error.reason in _WAITING or error.code is grpc.StatusCode.NOT_FOUND:
                await self._waiting(key, body, _reason(error.reason), str(error))
                raise Again(str(error)) from None
            if error.reason == "KEY_REUSED":
                seen = await self._orchestrator.run_of_key(key.namespace, run_key(uid))
            else:
                await self._refuse(key, body, _reason(error.reason), f"{error.reason}: {error}")
                return None
        return await self._follow(key, body, seen)

    async def _follow(self, key: Key, body: Body, seen: Seen) -> timedelta | None:
        if not has_ended(seen.run) and FINALIZER not in (body["metadata"].get("finalizers") or []):
            body = await self._guard(key, body)
        decision = decision_of(body, seen.run)
        if decision is not None:
            seen, body = await self._settle(key, body, seen, decision)
        changed = await self._show(key, body, seen)
        current = self._objects.get(key)
        if has_ended(seen.run):
            self._unchanged.pop(key.full_name, None)
            return await self._at_rest(key, current, False) if current is not None else None
        count = 0 if changed else self._unchanged.get(key.full_name, 0) + 1
        self._unchanged[key.full_name] = count
        return self._looks.ceiling(count + 1)

    async def _settle(self, key: Key, body: Body, seen: Seen, decision: Decision) -> tuple[Seen, Body]:
        """Carries a decision out and says what became of it, each once; the run and the object afterwards."""
        last = (body.get("status") or {}).get("lastResolution") or {}
        if last.get("id") != decision.id:
            seen, settled = await self._decide(seen.run, decision)
            body = await self._record(key, body, settled)
        return seen, await self._take_off(key, body, decision)

    async def _record(self, key: Key, body: Body, settled: dict[str, Any]) -> Body:
        body = await self._statuses.note(key, body, "lastResolution", settled)
        await self._tell(key, body, settled)
        return body

    async def _take_off(self, key: Key, body: Body, decision: Decision) -> Body:
        """Takes the annotations of a decision off, before the status shows another state than they were meant for."""
        if not decision.annotations:
            return body
        version = body["metadata"]["resourceVersion"]  # a newer decision under the same names is not taken off
        patch = {"metadata": {"annotations": dict.fromkeys(decision.annotations), "resourceVersion": version}}
        return self._objects.written(Kind.RUN, await self._client.patch(key, patch))

    async def _guard(self, key: Key, body: Body) -> Body:
        """Puts the finalizer on, if nothing has changed since the object was read."""
        metadata = body["metadata"]
        finalizers = [*(metadata.get("finalizers") or []), FINALIZER]
        patch = {"metadata": {"finalizers": finalizers, "resourceVersion": metadata["resourceVersion"]}}
        return self._objects.written(Kind.RUN, await self._client.patch(key, patch))

    async def _show(self, key: Key, body: Body, seen: Seen, *, waits: bool = False) -> bool:
        status = body.get("status") or {}
        fields = fields_of(seen.run)
        fields["timeline"] = timeline_of(seen.timeline)
        given = digest_of(body["spec"].get("input") or {})
        fields["inputDigest"] = status.get("inputDigest") or given
        fields["lastResolution"] = status.get("lastResolution")
        fields[HANDLED] = asked_of(body)
        accepted = _accepted(fields["inputDigest"] == given, problems_of(body["spec"]), waits)
        wanted = conditions_of(seen.run, accepted)
        if fields["phase"] != status.get("phase") and not (fields["phase"] in ENDED and not status.get("phase")):
            self._poke_soon(Key(Kind.SAGA, key.namespace, body["spec"]["saga"]))  # which counts its runs
        return await self._statuses.put(key, body, fields, wanted, tell=_told(fields["phase"]))

    async def _decide(self, run: run_pb2.Run, decision: Decision) -> tuple[Seen, dict[str, Any]]:
        """Carries a decision out; the run afterwards, and what to say of it."""
        refused = ""
        try:
            if decision.action == "compensate" and run.state == run_pb2.RUN_STATE_RUNNING and not decision.expected_seq:
                await self._orchestrator.cancel(run.run_id, decision.reason, decision.actor)
            else:
                await self._orchestrator.resolve(decision.request(run.run_id))
        except ValueError as error:
            refused = str(error)
        except RefusedError as error:
            refused = f"{error.reason}: {error}"
        seen = await self._orchestrator.run(run.run_id)
        if refused and decision.is_in(seen.timeline):  # a former life of ours was cut off after it
            refused = ""
        log.info(DECIDED, run_id=run.run_id, action=decision.action, actor=decision.actor, accepted=not refused)
        return seen, self._settled(decision, refused)

    def _settled(self, decision: Decision, refused: str) -> dict[str, Any]:
        said = {
            "id": decision.id,
            "action": decision.action,
            "reason": decision.reason[:1000],
            "actor": decision.actor[:1000],
            "accepted": not refused,
            "at": self._statuses.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        return said | ({"message": refused[:1000]} if refused else {})

    async def _tell(self, key: Key, body: Body, settled: dict[str, Any]) -> None:
        told = f"{settled['action']} by {settled['actor']}: {settled['reason']}"
        if settled["accepted"]:
            await self._events.tell(key, body, "Decided", told)
        else:
            await self._events.tell(key, body, "DecisionRefused", f"{told}: {settled['message']}", warning=True)

    async def _at_rest(self, key: Key, body: Body, deleted: bool) -> timedelta | None:
        """A run that has ended: lets the object go, now or when its time has come."""
        metadata = body["metadata"]
        finalizers = metadata.get("finalizers") or []
        if FINALIZER in finalizers:
            await self._deletion.release(key, body)
        elif body["status"].get("observedGeneration") != generation_of(body) or asks_again(body):
            await self._statuses.observed(key, body)
        if deleted:
            return None
        ttl = self._ttl(body)
        if ttl is None:
            return None
        ended = datetime.strptime(body["status"]["endedAt"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        left = ended + ttl - self._statuses.now()
        if left > timedelta():
            return left
        await self._client.delete(key, metadata["uid"])
        return None

    def _ttl(self, body: Body) -> timedelta | None:
        own = (body.get("spec") or {}).get("ttlAfterEnd")
        return duration(own) if is_duration(own) else self._limits.ttl

    async def _suspended(self, key: Key, body: Body) -> None:
        """Left alone: one that is not started says so, one that is shows what was known of it."""
        status = body.get("status") or {}
        started = bool(status.get("runId"))
        message = "the run goes on and is not shown" if started else "it is not started"
        message = f"spec.suspend is true: {message}"
        shown = [condition_of(found) for found in (status.get("conditions") or [] if started else [])]
        wanted = [condition for condition in shown if condition.type != "Ready"]
        fields = dict(status) if started else {"phase": "Suspended", "message": message}
        await self._statuses.put(key, body, fields, [*wanted, Condition("Ready", None, "Suspended", message)])

    async def _waiting(self, key: Key, body: Body, reason: str, why: str) -> None:
        """Says why the run is not started; one that is shows what was known of it last."""
        status = body.get("status") or {}
        if status.get("runId") or "deletionTimestamp" in body["metadata"]:
            return
        wanted = [
            Condition("Accepted", False if reason != AWAY else None, reason, why),
            Condition("Ready", False, reason, why),
            Condition("Reconciling", True, reason, why),
        ]
        try:
            fields = {"phase": "Pending", "message": why[:300], **carried(body, (HANDLED,))}
            await self._statuses.put(key, body, fields, wanted)
        except ApiError as error:  # it is tried again with the start itself
            log.debug(UNSAID, run=key.full_name, why=str(error))

    async def _refuse(self, key: Key, body: Body, reason: str, message: str) -> None:
        log.info(REFUSED, run=key.full_name, reason=reason)
        wanted = [Condition(kind, False, reason, message) for kind in ("Accepted", "Ready")]
        fields = {"phase": "Refused", "message": message[:LONGEST], HANDLED: asked_of(body)}
        await self._statuses.put(key, body, fields, wanted, tell=("Ready",))

    async def _lost(self, key: Key, body: Body, why: str) -> None:
        """The orchestrator knows no such run: it is never started again, for it may have had its effects."""
        message = f"the orchestrator does not know the run any more: {why}"
        kept = {**carried(body, _KEPT), HANDLED: asked_of(body)}
        wanted = [
            Condition("Accepted", True, "Accepted", "the orchestrator took it"),
            Condition("Ready", False, "RunUnknown", message),
            Condition("Stalled", True, "RunUnknown", message),
        ]
        await self._statuses.put(key, body, {**kept, "phase": _LOST, "message": message}, wanted, tell=("Stalled",))


def _accepted(same_input: bool, problems: list[str], waits: bool) -> Condition:
    if not same_input:
        message = "spec.input was changed after the start: the run goes on with what it was started with"
        return Condition("Accepted", True, "InputChangeIgnored", message)
    if problems:
        return Condition("Accepted", True, "ChangeIgnored", "; ".join(problems))
    if waits:
        return Condition("Accepted", True, "Deleting", "deleted: the resource goes when the run has ended")
    return Condition("Accepted", True, "Accepted", "the orchestrator took it")


def _told(phase: str) -> tuple[str, ...]:
    """Events are for what people should look at; a run that completes is quiet."""
    if phase == "Compensated":
        return ("Ready",)
    return ("Stalled",) if phase in ("Running", "Compensating", "Parked") else ()


def _reason(reason: str) -> str:
    """SAGA_UNKNOWN as conditions write it: SagaUnknown."""
    return "".join(part.capitalize() for part in reason.split("_")) or "Refused"
