"""The decision of a person about a run, read from annotations or spec.resolution. Pure.

`amends.dev/retry`, `amends.dev/skip`, `amends.dev/compensate`, `amends.dev/amend` and `amends.dev/park` have the reason
as value; `amends.dev/actor`, `amends.dev/effect`, `amends.dev/result` and `amends.dev/amendment` go with them. The
expected state is the parked record that the status shows, never the one that the run has now: the person has not seen
that. So a decision that is sent twice, after a crash for example, is refused the second time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from amends.saga.v1 import run_pb2
from amends.saga.v1 import run_service_pb2 as pb
from amends_operator.kube.objects import GROUP, Body
from amends_operator.runs.spec import resolution_problems
from amends_operator.runs.values import exact

ACTIONS = {
    "retry": pb.RESOLUTION_RETRY,
    "skip": pb.RESOLUTION_SKIP,
    "compensate": pb.RESOLUTION_COMPENSATE,
    "amend": pb.RESOLUTION_AMEND,
    "park": pb.RESOLUTION_PARK,
}
_EFFECTS = {"happened": pb.EFFECT_HAPPENED, "none": pb.EFFECT_NONE}
_BESIDE = ("actor", "effect", "result", "amendment")
_LONGEST = 1000


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision of a person about a run."""

    id: str
    """The same for the same decision, however often it is read."""
    action: str
    reason: str
    actor: str
    expected_seq: int
    effect: str = ""
    result: str = ""
    amendment: str = ""
    annotations: tuple[str, ...] = ()
    """The annotations that it was read from, to be taken off when it is done."""

    def request(self, run_id: str) -> pb.ResolveRunRequest:
        """Return the request to the orchestrator. Raises ValueError with a sentence for people."""
        request = pb.ResolveRunRequest(
            run_id=run_id,
            resolution=ACTIONS[self.action],
            expected_seq=self.expected_seq,
            reason=self.reason,
            actor=self.actor,
            effect=self._effect(),
            amendment=self.amendment,
        )
        if self.result:
            request.result.update(self._result())
        return request

    def cancels(self, run: run_pb2.Run) -> bool:
        """Return whether it asks to compensate a run that goes forward, so that there is nothing to resolve."""
        return self.action == "compensate" and run.state == run_pb2.RUN_STATE_RUNNING and not self.expected_seq

    def is_in(self, timeline: Iterable[run_pb2.RunEvent]) -> bool:
        """Return whether the journal has recorded it, after the record that it was made about."""
        return any(
            event.seq > self.expected_seq and event.actor == self.actor and self.reason in event.message
            for event in timeline
        )

    def _effect(self) -> pb.Effect.ValueType:
        if self.effect and self.effect not in _EFFECTS:
            raise ValueError("the effect must be happened or none")
        return _EFFECTS.get(self.effect, pb.EFFECT_UNSPECIFIED)

    def _result(self) -> dict[str, Any]:
        try:
            found = json.loads(self.result)
        except ValueError:
            raise ValueError("the result is no JSON") from None
        if not isinstance(found, dict):
            raise ValueError("the result must be a JSON object")
        return dict(exact(found))


def decision_of(body: Body) -> Decision | None:
    """Return the decision that an object carries and that was not carried out yet; annotations go before the spec."""
    annotations: Mapping[str, str] = body["metadata"].get("annotations") or {}
    status = body.get("status") or {}
    done = (status.get("lastResolution") or {}).get("id")
    for action in ACTIONS:
        if f"{GROUP}/{action}" in annotations:
            return _annotated(body, annotations, action)
    given = (body.get("spec") or {}).get("resolution")
    if given is None or not isinstance(given, Mapping) or resolution_problems(given):
        return None
    decision = Decision(
        id=_digest(json.dumps(given, sort_keys=True)),
        action=given["action"].lower(),
        reason=given["reason"],
        actor=given["actor"],
        expected_seq=given["expectedSeq"],
        effect=(given.get("effect") or "").lower(),
        result=json.dumps(given["result"]) if given.get("result") is not None else "",
        amendment=given.get("amendment") or "",
    )
    return None if decision.id == done else decision


def _annotated(body: Body, annotations: Mapping[str, str], action: str) -> Decision:
    expected = int(((body.get("status") or {}).get("parked") or {}).get("seq", 0))
    name = f"{GROUP}/{action}"
    beside = [f"{GROUP}/{other}" for other in _BESIDE if f"{GROUP}/{other}" in annotations]
    said = json.dumps([action, expected, *(annotations[other] for other in (name, *beside))])
    return Decision(
        id=_digest(said),
        action=action,
        reason=annotations[name].strip()[:_LONGEST] or "no reason was given",
        actor=annotations.get(f"{GROUP}/actor", "").strip()[:_LONGEST] or "somebody with access to the SagaRun",
        expected_seq=expected,
        effect=annotations.get(f"{GROUP}/effect", "").strip().lower(),
        result=annotations.get(f"{GROUP}/result", "").strip(),
        amendment=annotations.get(f"{GROUP}/amendment", "").strip(),
        annotations=(name, *beside),
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
