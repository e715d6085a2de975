"""What is done for a SagaRun, as one table: what is so, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from amends_operator.kube.statuses import AWAY
from amends_operator.orchestrator import SeenRun
from amends_operator.runs import reports
from amends_operator.runs.decisions import decision_of
from amends_operator.runs.next_step import next_step, unreachable
from amends_operator.runs.observed import (
    FINALIZER,
    Missing,
    Observed,
    OrchestratorAnswer,
    OrchestratorRefusal,
    RunLimits,
)
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

from amends.saga.v1 import run_pb2

NOW = datetime(2026, 1, 2, 10, tzinfo=UTC)
LIMITS = RunLimits(
    quick=timedelta(seconds=1),
    slowest_look=timedelta(seconds=5),
    ttl=None,
    resync=timedelta(seconds=30),
    deletion_patience=timedelta(hours=24),
)
RUNNING, PARKED = run_pb2.RUN_STATE_RUNNING, run_pb2.RUN_STATE_PARKED
COMPLETED, COMPENSATED = run_pb2.RUN_STATE_COMPLETED, run_pb2.RUN_STATE_COMPENSATED
MISSING = Missing("RUN_UNKNOWN: there is no run r-1")


def a_run(
    state: run_pb2.RunState.ValueType, *resolutions: str, actor: str = "", said: str = "", seq: int = 6
) -> SeenRun:
    run = run_pb2.Run(run_id="r-1", state=state, message="so it is", seq=9)
    if state == PARKED:
        run.parked.seq, run.parked.reason, run.parked.step = 5, "REJECTED", "charge"
        run.parked.resolutions.extend(resolutions or ("retry", "skip"))
    if state in (COMPLETED, COMPENSATED):
        run.ended_at.FromDatetime(NOW)
    return SeenRun(run, [run_pb2.RunEvent(seq=seq, actor=actor, message=said)] if actor else [])


@dataclass
class Case:
    """An object with a run, in the words of the table."""

    metadata: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)

    def observed(self) -> Observed:
        named = {"name": "order", "namespace": "shop", "uid": "u-1", "generation": 1}
        body = {
            "metadata": named | self.metadata,
            "spec": {"saga": "place-order"} | self.spec,
            "status": self.status,
        }
        return Observed(body, NOW, LIMITS, **self.seen)


def new(**spec: Any) -> Case:
    return Case(spec=spec)


def started(phase: str = "Running", **status: Any) -> Case:
    known = {"runId": "r-1", "phase": phase, "observedGeneration": 1}
    return Case({"finalizers": [FINALIZER]}, status=known | status)


def parked(**annotations: str) -> Case:
    case = started("Parked", parked={"seq": 5})
    case.metadata["annotations"] = {f"amends.dev/{name}": value for name, value in annotations.items()}
    return case


def ended(phase: str = "Completed", **status: Any) -> Case:
    case = started(phase, endedAt="2026-01-02T09:00:00Z", **status)
    del case.metadata["finalizers"]
    return case


def but(case: Case, *, spec: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None, **seen: Any) -> Case:
    return replace(
        case,
        spec=case.spec | (spec or {}),
        metadata=case.metadata | (metadata or {}),
        seen=case.seen | seen,
    )


def deleted(case: Case, since: str = "2026-01-02T09:59:00Z") -> Case:
    return but(case, metadata={"deletionTimestamp": since})


def refused(step: Any, reason: str, *, not_found: bool = False) -> OrchestratorAnswer:
    return OrchestratorAnswer(step, OrchestratorRefusal(reason, "no", not_found))


def kinds(steps: Any) -> list[type[Do]]:
    return [type(step) for step in steps if not isinstance(step, Log)]


RETRY = parked(retry="the dispute is closed", actor="grace")
DECISION = decision_of(RETRY.observed().body)
assert DECISION is not None
CARRIED_OUT = CarryOut(DECISION, "r-1", False)
START = StartRun("place-order", "sagarun/u-1", {})
UNFINISHED: dict[str, Any] = {"finalizers": []}

TABLE: dict[str, tuple[Case, list[type[Do]]]] = {
    # Before the start.
    "a new object is started": (new(), [StartRun]),
    "a suspended object is not started": (new(suspend=True), [Report, Rest]),
    "a spec that makes no sense is refused": (new(saga=5), [Report, Rest]),
    "a time after the end beyond a hundred years is refused": (new(ttlAfterEnd="999999999d1d"), [Report, Rest]),
    "what was refused stays so": (Case(status={"phase": "Refused", "observedGeneration": 1}), [Rest]),
    "what was refused is tried again when it has changed": (
        Case({"generation": 2}, status={"phase": "Refused", "observedGeneration": 1}),
        [StartRun],
    ),
    "what was refused is tried again when somebody asks": (
        Case({"annotations": {"amends.dev/reconcile-at": "now"}}, status={"phase": "Refused", "observedGeneration": 1}),
        [StartRun],
    ),
    "a saga that is not there yet is waited for": (
        but(new(), answer=refused(START, "SAGA_UNKNOWN", not_found=True)),
        [Report, TryAgain],
    ),
    "a saga that is not ready is waited for": (but(new(), answer=refused(START, "SAGA_NOT_READY")), [Report, TryAgain]),
    "an input that does not fit is refused": (but(new(), answer=refused(START, "INPUT_INVALID")), [Report, Rest]),
    "an input that was changed before the start was recorded does not hide the run": (
        but(new(), answer=refused(START, "KEY_REUSED")),
        [Look],
    ),
    "a named key of another input is refused, for its run is somebody else's": (
        but(new(key="order-7"), answer=refused(START, "KEY_REUSED")),
        [Report, Rest],
    ),
    "a key that was reused and is unknown is asked about again": (
        but(new(), answer=refused(START, "KEY_REUSED"), run=MISSING),
        [TryAgain],
    ),
    # Following a run.
    "a run that ended at once is written once, and its saga has never counted it": (
        but(new(), run=a_run(COMPLETED), answer=OrchestratorAnswer(START)),
        [Report],
    ),
    "a run that goes on is guarded first": (
        but(new(), run=a_run(RUNNING), answer=OrchestratorAnswer(START)),
        [PutFinalizer],
    ),
    "a guarded run is shown": (
        but(new(), metadata={"finalizers": [FINALIZER]}, run=a_run(RUNNING), answer=OrchestratorAnswer(START)),
        [RefreshSaga, Report, Follow],
    ),
    "a started run is looked at": (started(), [Look]),
    "a run without news is shown as it was": (but(started(), run=a_run(RUNNING)), [Report, Follow]),
    "a run in another phase has its saga counted again": (
        but(started(), run=a_run(PARKED)),
        [RefreshSaga, Report, Follow],
    ),
    "a run that ended is shown, and then looked at once more": (
        but(started(), run=a_run(COMPENSATED)),
        [RefreshSaga, Report],
    ),
    "a run whose finalizer was taken off is guarded again": (
        but(started(), metadata=UNFINISHED, run=a_run(RUNNING)),
        [PutFinalizer],
    ),
    "a run that the orchestrator lost is never started again": (but(started(), run=MISSING), [Report, Rest]),
    "a suspended run is not looked at": (but(started(), spec={"suspend": True}), [Report, Rest]),
    # Decisions.
    "a decision needs a look first": (RETRY, [Look]),
    "a decision is carried out": (but(RETRY, run=a_run(PARKED)), [CarryOut]),
    "a decision that was taken is recorded and told": (
        but(RETRY, run=a_run(RUNNING), answer=OrchestratorAnswer(CARRIED_OUT)),
        [RecordDecision, WriteEvent],
    ),
    "a decision that was refused is recorded and told": (
        but(RETRY, run=a_run(PARKED), answer=refused(CARRIED_OUT, "STATE_CHANGED")),
        [RecordDecision, WriteEvent],
    ),
    "a recorded decision loses its annotations": (
        but(replace(RETRY, status=RETRY.status | {"lastResolution": {"id": DECISION.id}}), run=a_run(RUNNING)),
        [RemoveAnnotations],
    ),
    "another decision's answer is not this one's": (
        but(
            RETRY,
            run=a_run(PARKED),
            answer=OrchestratorAnswer(CarryOut(replace(DECISION, reason="another"), "r-1", False)),
        ),
        [CarryOut],
    ),
    # After the end.
    "an ended run rests": (ended(), [Rest]),
    "an ended run lets its object go": (but(ended(), metadata={"finalizers": [FINALIZER]}), [RemoveFinalizer, Rest]),
    "a change after the end is acknowledged": (but(ended(), metadata={"generation": 2}), [Acknowledge, Rest]),
    "an object whose time has come is deleted": (but(ended(), spec={"ttlAfterEnd": "59m"}), [Delete, Rest]),
    "a time after the end that nobody can read keeps the object": (
        but(ended(), spec={"ttlAfterEnd": "999999999d"}),
        [Rest],
    ),
    "a decision after the end is looked into": (but(ended(), metadata=RETRY.metadata), [Look]),
    "a decision about an ended run that is forgotten is answered": (
        but(ended(), metadata=RETRY.metadata, run=MISSING),
        [RecordDecision, WriteEvent],
    ),
    # Deletion.
    "a deleted object has its run looked at": (deleted(started()), [Look]),
    "a deleted object's run is cancelled": (but(deleted(started()), run=a_run(RUNNING)), [Undo]),
    "a deleted object's parked run is compensated": (
        but(deleted(started("Parked")), run=a_run(PARKED, "retry", "compensate")),
        [Undo],
    ),
    "a deleted object waits for a run that cannot be undone": (
        but(deleted(started("Parked")), run=a_run(PARKED, "retry")),
        [Report, Rest],
    ),
    "a refused undo is told, and the run is shown": (
        but(deleted(started()), run=a_run(RUNNING), answer=refused(Undo("r-1", None), "PAST_PIVOT")),
        [WriteEvent, Report, Rest],
    ),
    "a deleted object goes when its run has ended": (
        but(deleted(started()), run=a_run(COMPENSATED)),
        [RemoveFinalizer, Rest],
    ),
    "a deleted object goes when its run is unknown": (but(deleted(started()), run=MISSING), [RemoveFinalizer, Rest]),
    "a deleted object that abandons its run goes unasked": (
        but(deleted(started()), spec={"onDeletion": "Abandon"}),
        [WriteEvent, RemoveFinalizer, Rest],
    ),
    "a deleted object goes after a day": (
        but(deleted(started(), "2026-01-01T09:59:59Z"), run=a_run(RUNNING)),
        [WriteEvent, RemoveFinalizer, Rest],
    ),
    "a deleted object does not go within a day": (
        but(deleted(started(), "2026-01-01T10:00:01Z"), run=a_run(RUNNING)),
        [Undo],
    ),
    "a deleted object's run that another object shows is left to that": (
        but(deleted(started()), spec={"key": "order-7"}, shared=True),
        [RemoveFinalizer, Rest],
    ),
    "an ended and deleted object goes": (
        but(deleted(ended()), metadata={"finalizers": [FINALIZER]}),
        [RemoveFinalizer, Rest],
    ),
    "an object whose finalizer a person took off asks nobody": (
        but(deleted(started()), metadata=UNFINISHED),
        [Rest],
    ),
    # Gone before anybody could look.
    "a run whose object is gone is looked for": (but(new(), gone=True), [Look]),
    "a run whose object is gone is undone": (but(new(), gone=True, run=a_run(RUNNING)), [Undo]),
    "a run whose object is gone and that is past its pivot is told": (
        but(new(), gone=True, run=a_run(RUNNING), answer=refused(Undo("r-1", None), "PAST_PIVOT")),
        [WriteEvent, Rest],
    ),
    "an object that is gone and had no run needs nothing": (but(new(), gone=True, run=MISSING), [Rest]),
    "an object that is gone with its finalizer on was released": (but(started(), gone=True), [Rest]),
    "an object that is gone and abandons its run needs nothing": (but(new(onDeletion="Abandon"), gone=True), [Rest]),
    "a refused object that is gone does not undo the run that has its key": (
        but(Case(spec={"key": "order-7"}, status={"phase": "Refused"}), gone=True),
        [Rest],
    ),
}


@pytest.mark.parametrize(("case", "wanted"), TABLE.values(), ids=TABLE)
def test_what_follows(case: Case, wanted: list[type[Do]]) -> None:
    assert kinds(next_step(case.observed())) == wanted


def only(kind: type[Any], steps: Any) -> Any:
    (found,) = [step for step in steps if isinstance(step, kind)]
    return found


def test_a_lost_run_stays_named_in_the_status_so_that_no_later_look_starts_it() -> None:
    steps = next_step(but(started(digest="d"), run=MISSING).observed())
    fields = only(Report, steps).fields
    assert (fields["phase"], fields["runId"], fields["digest"]) == ("Unknown", "r-1", "d")
    assert [(one.type, one.holds, one.reason) for one in only(Report, steps).conditions if one.type != "Accepted"] == [
        ("Ready", False, "RunUnknown"),
        ("Stalled", True, "RunUnknown"),
    ]
    again = next_step(started("Unknown").observed())
    assert kinds(again) == [Look]


@pytest.mark.parametrize(
    ("key", "wanted"), [(None, "sagarun/u-1"), ("order-7", "order-7")], ids=["by uid", "by the caller's key"]
)
def test_the_key_of_the_run(key: str | None, wanted: str) -> None:
    assert only(StartRun, next_step(new(key=key).observed())).key == wanted
    assert only(Look, next_step(but(new(key=key), gone=True).observed())).key == wanted


def test_a_restored_object_finds_its_run_under_another_uid() -> None:
    (first,) = next_step(new(key="order-7").observed())
    (restored,) = next_step(but(new(key="order-7"), metadata={"uid": "u-2"}).observed())
    assert first == restored


@pytest.mark.parametrize(
    ("events", "taken"),
    [
        (a_run(PARKED), False),
        (a_run(PARKED, actor="grace", said="retry: the dispute is closed", seq=6), True),
        (a_run(PARKED, actor="grace", said="retry: the dispute is closed", seq=5), False),
        (a_run(PARKED, actor="ada", said="retry: the dispute is closed", seq=6), False),
        (a_run(PARKED, actor="grace", said="retry: something else", seq=6), False),
    ],
    ids=["not in the journal", "recorded", "of before", "another's", "of another reason"],
)
def test_a_refused_decision_counts_as_taken_only_if_the_journal_has_it(events: SeenRun, taken: bool) -> None:
    steps = next_step(but(RETRY, run=events, answer=refused(CARRIED_OUT, "STATE_CHANGED")).observed())
    assert only(RecordDecision, steps).resolution["accepted"] is taken
    assert only(WriteEvent, steps).reason == ("Decided" if taken else "DecisionRefused")


def test_a_look_at_a_run_that_ends_within_its_time_rests_until_then() -> None:
    (rest,) = next_step(but(ended(), spec={"ttlAfterEnd": "61m"}).observed())
    assert rest == Rest(timedelta(minutes=1))


@pytest.mark.parametrize(
    ("case", "says"),
    [(new(), True), (started(), False), (deleted(new()), False), (but(new(), gone=True), False)],
    ids=["not started", "started", "deleted", "gone"],
)
def test_an_orchestrator_that_is_away_is_told_only_of_what_is_not_started(case: Case, says: bool) -> None:
    assert bool(unreachable(case.observed(), "UNAVAILABLE: nobody answers")) is says


def held(report: Report) -> dict[str, bool | None]:
    return {condition.type: condition.holds for condition in report.conditions}


def test_what_is_not_started_says_whether_it_will_be() -> None:
    seen = new().observed()
    assert held(reports.pending(seen, "SagaNotReady", "why")) == {
        "Accepted": False,
        "Ready": False,
        "Reconciling": True,
    }
    away = reports.pending(seen, AWAY, "w" * 1000)
    assert held(away) == {"Accepted": None, "Ready": False, "Reconciling": True}
    assert (away.fields["phase"], away.fields["message"]) == ("Pending", "w" * 300)
    no = reports.refused(seen, "INPUT_INVALID", "why")
    assert (held(no), no.fields["phase"], no.tell) == ({"Accepted": False, "Ready": False}, "Refused", ("Ready",))
    gone = reports.lost(seen, "why")
    assert (held(gone), gone.tell) == ({"Accepted": True, "Ready": False, "Stalled": True}, ("Stalled",))
    suspended = reports.suspended(seen)
    assert (held(suspended), suspended.fields["phase"]) == ({"Ready": None}, "Suspended")
    known = {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "it is"}
    shown = reports.suspended(started(conditions=[known]).observed())
    assert (held(shown), shown.fields["phase"]) == ({"Accepted": True, "Ready": None}, "Running")


CONDITIONS: dict[str, tuple[Callable[[], Case], str]] = {
    "changed input": (lambda: started(inputDigest="of before"), "InputChangeIgnored"),
    "nonsense after the start": (lambda: but(started(), spec={"onDeletion": 5}), "ChangeIgnored"),
    "nothing": (started, "Accepted"),
}


@pytest.mark.parametrize(("case", "reason"), CONDITIONS.values(), ids=CONDITIONS)
def test_what_is_said_of_a_change_after_the_start(case: Callable[[], Case], reason: str) -> None:
    report = only(Report, next_step(but(case(), run=a_run(RUNNING)).observed()))
    assert [one.reason for one in report.conditions if one.type == "Accepted"] == [reason]
