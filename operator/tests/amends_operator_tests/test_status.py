"""What statuses say, as values: bounds, transitions, differences."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from amends_operator.kube.conditions import Condition, conditions, difference, transitions
from amends_operator.runs.reports import event_conditions
from amends_operator.runs.spec import problems_of
from amends_operator.runs.values import exact, key_of_run, positive_duration
from amends_operator.runs.view import conditions_of, fields_of, has_ended, timeline_of

from amends.saga.v1 import run_pb2

NOW = datetime(2026, 1, 1, 10, tzinfo=UTC)
LARGEST = 512 * 1024
"""A third of what etcd takes."""


def worst() -> tuple[run_pb2.Run, list[run_pb2.RunEvent]]:
    """A run with everything in it, each as long as it gets."""
    text = "x" * 100_000
    run = run_pb2.Run(run_id="r" * 36, digest="d" * 64, state=run_pb2.RUN_STATE_PARKED, message=text, seq=2**40)
    run.started_at.FromDatetime(NOW)
    for number in range(300):
        run.steps.add(name=f"step_{number}", state=run_pb2.STEP_STATE_IN_DOUBT, attempts=1000, message=text)
    run.parked.reason, run.parked.message, run.parked.step = "REJECTED", text, "step_1"
    run.parked.resolutions.extend(["retry", "skip", "compensate"])
    run.stalled.reason = run.failure.reason = run.failure.message = text
    events = [run_pb2.RunEvent(seq=number, kind="ANSWERED", step="step_1", message=text) for number in range(50)]
    return run, events


def test_the_largest_status_is_far_below_what_etcd_takes() -> None:
    run, events = worst()
    accepted = Condition("Accepted", True, "Accepted", "x" * 100_000)
    status = {
        **fields_of(run),
        "timeline": timeline_of(events),
        "conditions": conditions([], conditions_of(run, accepted), 1, NOW),
    }
    assert len(json.dumps(status)) < LARGEST


def test_why_a_run_was_undone_is_in_its_status_as_far_as_it_is_known() -> None:
    run = run_pb2.Run(state=run_pb2.RUN_STATE_COMPENSATED)
    assert "failure" not in fields_of(run)
    run.failure.cause = "DEADLINE"
    assert fields_of(run)["failure"] == {"cause": "DEADLINE"}
    run.failure.MergeFrom(run_pb2.Failure(cause="REJECTED", step="charge", code="FAILED_PRECONDITION", reason="OUT"))
    assert fields_of(run)["failure"] == {
        "cause": "REJECTED",
        "step": "charge",
        "code": "FAILED_PRECONDITION",
        "reason": "OUT",
    }


def test_a_transition_is_another_status_or_reason_and_not_another_message() -> None:
    former = conditions([], [Condition("Ready", False, "Pending", "one")], 1, NOW)
    assert transitions(former, [Condition("Ready", False, "Pending", "two")]) == []
    assert transitions(former, [Condition("Ready", False, "Refused", "one")]) != []
    assert transitions(former, [Condition("Ready", True, "Accepted")]) != []


def test_the_time_of_a_condition_changes_with_its_status_alone() -> None:
    former = conditions([], [Condition("Ready", False, "Pending", "one")], 1, NOW)
    later = datetime(2026, 1, 2, tzinfo=UTC)
    (same,) = conditions(former, [Condition("Ready", False, "Refused", "two")], 2, later)
    assert (same["lastTransitionTime"], same["observedGeneration"]) == ("2026-01-01T10:00:00Z", 2)
    (other,) = conditions(former, [Condition("Ready", True, "Accepted")], 2, later)
    assert other["lastTransitionTime"] == "2026-01-02T00:00:00Z"


def test_a_difference_names_what_vanished_and_nothing_that_is_the_same() -> None:
    before = {"phase": "Parked", "parked": {"seq": 1, "step": "a"}, "runs": {"running": 1, "parked": 1}, "steps": [1]}
    after = {"phase": "Running", "runs": {"running": 1}, "steps": [1]}
    assert difference(before, after) == {"phase": "Running", "parked": None, "runs": {"parked": None}}
    assert difference(after, after) == {}


@pytest.mark.parametrize("state", run_pb2.RunState.values())
def test_every_state_has_conditions_and_only_two_have_ended(state: run_pb2.RunState.ValueType) -> None:
    run = run_pb2.Run(state=state)
    shown = {condition.type: condition.holds for condition in conditions_of(run, Condition("Accepted", True, "x"))}
    assert shown["Ended"] is has_ended(run)
    assert shown["Ready"] is (state == run_pb2.RUN_STATE_COMPLETED)
    assert ("Reconciling" in shown) is (state in (run_pb2.RUN_STATE_RUNNING, run_pb2.RUN_STATE_COMPENSATING))


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({}, "spec.saga is missing"),
        ({"saga": "a" * 64}, "spec.saga must be"),
        ({"saga": "a", "ttl": "1h"}, "spec.ttl is no field"),
        ({"saga": "a", "ttlAfterEnd": "0s"}, "spec.ttlAfterEnd must be"),
        ({"saga": "a", "input": "x"}, "spec.input must be a mapping"),
        ({"saga": "a", "resolution": {"action": "Skip", "reason": "r", "actor": "a"}}, "expectedSeq is missing"),
        (
            {"saga": "a", "resolution": {"action": "Skip", "reason": "r", "actor": "a", "expectedSeq": True}},
            "expectedSeq must be a number",
        ),
    ],
)
def test_a_spec_that_no_schema_has_looked_at_is_told_what_is_wrong(spec: dict[str, Any], problem: str) -> None:
    assert problem in "; ".join(problems_of(spec))


def test_a_good_spec_has_no_problem() -> None:
    resolution = {"action": "Skip", "reason": "r", "actor": "a", "expectedSeq": 0, "effect": "None", "result": {}}
    whole = {
        "saga": "a",
        "input": {},
        "suspend": False,
        "ttlAfterEnd": "1d12h",
        "key": "order-7",
        "onDeletion": "Abandon",
    }
    assert problems_of(whole | {"resolution": resolution}) == []


@pytest.mark.parametrize("ttl", ["0ms", "5", 5, "999999999d", "999999999d1d", "36601d"])
def test_a_time_after_the_end_that_is_no_duration_is_refused(ttl: object) -> None:
    assert "spec.ttlAfterEnd must be a duration" in "; ".join(problems_of({"saga": "a", "ttlAfterEnd": ttl}))
    assert positive_duration(ttl) is None


@pytest.mark.parametrize("key", ["", "a" * 256, "a\nb", "sagarun/6f1e", 7])
def test_a_key_that_nobody_could_start_with_is_refused(key: object) -> None:
    assert "spec.key must be" in "; ".join(problems_of({"saga": "a", "key": key}))


def test_a_step_shows_what_it_has() -> None:
    run = run_pb2.Run(steps=[run_pb2.StepStatus(name="a", state=run_pb2.STEP_STATE_DONE, attempts=2, message="late")])
    run.steps.add(name="b")
    assert fields_of(run)["steps"] == [
        {"name": "a", "state": "Done", "attempts": 2, "message": "late"},
        {"name": "b", "state": "Pending"},
    ]


@pytest.mark.parametrize(
    ("phase", "told"),
    [
        ("Running", ("Stalled",)),
        ("Compensating", ("Stalled",)),
        ("Parked", ("Stalled",)),
        ("Compensated", ("Ready",)),
        ("Completed", ()),
    ],
)
def test_people_hear_of_what_stands_still_and_of_what_was_undone(phase: str, told: tuple[str, ...]) -> None:
    assert event_conditions(phase) == told


def test_whole_numbers_beyond_a_double_become_texts() -> None:
    assert exact({"a": [2**53 + 1, 2**53, True, 1.5, None]}) == {"a": [str(2**53 + 1), 2**53, True, 1.5, None]}


@pytest.mark.parametrize("part", ["parked", "stalled"])
def test_the_status_shows_that_a_run_is_parked_or_stalled_only_while_it_is(part: str) -> None:
    run = run_pb2.Run(run_id="r", state=run_pb2.RUN_STATE_RUNNING)
    assert part not in fields_of(run)
    getattr(run, part).step = "charge"
    assert fields_of(run)[part]["step"] == "charge"


@pytest.mark.parametrize("body", [{}, {"spec": None}, {"spec": {"key": ""}}, {"spec": {"key": 7}}])
def test_a_run_whose_spec_names_no_key_has_one_of_its_own(body: dict[str, Any]) -> None:
    assert key_of_run(body | {"metadata": {"uid": "u-1"}}) == "sagarun/u-1"
