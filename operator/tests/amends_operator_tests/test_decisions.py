"""What a person decided, as it is read from an object."""

from typing import Any

import pytest
from amends_operator.runs.decisions import Decision, decision_of

from amends.saga.v1 import run_pb2
from amends.saga.v1 import run_service_pb2 as pb


def body(annotations: dict[str, str], spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    named = {f"amends.dev/{name}": value for name, value in annotations.items()}
    return {"metadata": {"annotations": named}, "spec": spec or {}, "status": status}


def decided(*arguments: Any, **status: Any) -> Decision:
    found = decision_of(body(*arguments, **status))
    assert found is not None
    return found


def test_a_decision_is_about_the_parked_record_that_the_status_shows() -> None:
    skip = decided({"skip": "refunded by hand", "actor": "ada", "effect": "Happened"}, parked={"seq": 5})
    request = skip.request("r-1")
    assert (request.expected_seq, request.effect, request.actor) == (5, pb.EFFECT_HAPPENED, "ada")
    assert request.resolution == pb.RESOLUTION_SKIP
    assert skip.annotations == ("amends.dev/skip", "amends.dev/actor", "amends.dev/effect")


def test_a_decision_about_a_parked_record_that_nobody_was_shown_names_none() -> None:
    assert decided({"skip": "by hand"}).expected_seq == 0
    assert decided({"skip": "by hand"}, parked={}).expected_seq == 0


def test_the_same_words_about_another_parked_record_are_another_decision() -> None:
    first, second = (decided({"retry": "again"}, parked={"seq": seq}) for seq in (5, 9))
    assert first.id != second.id
    assert first == decided({"retry": "again"}, parked={"seq": 5})


@pytest.mark.parametrize(
    ("action", "state", "seq", "cancels"),
    [
        ("compensate", run_pb2.RUN_STATE_RUNNING, 0, True),
        ("compensate", run_pb2.RUN_STATE_RUNNING, 5, False),
        ("compensate", run_pb2.RUN_STATE_PARKED, 0, False),
        ("park", run_pb2.RUN_STATE_RUNNING, 0, False),
    ],
)
def test_only_a_run_that_goes_forward_is_cancelled(action: str, state: Any, seq: int, cancels: bool) -> None:
    decision = decided({action: "changed my mind"}, parked={"seq": seq})
    assert decision.cancels(run_pb2.Run(state=state)) is cancels


def test_a_decision_in_the_spec_is_read_until_it_is_recorded() -> None:
    given = {"action": "Skip", "reason": "by hand", "actor": "ada", "expectedSeq": 5, "result": {"id": 2**60}}
    found = decided({}, {"resolution": given})
    assert found.request("r-1").result["id"] == str(2**60)
    assert decision_of(body({}, {"resolution": given}, lastResolution={"id": found.id})) is None


WHOLE = {"reason": "r", "actor": "a", "expectedSeq": 7}


@pytest.mark.parametrize(
    "given",
    [
        "skip",
        {"action": "Explode"},
        {"action": "Skip", "reason": "r", "actor": "a"},
        {"action": "Amend", **WHOLE},
        {"action": "Skip", **WHOLE, "amendment": "refund"},
    ],
)
def test_a_decision_in_the_spec_that_makes_no_sense_is_none(given: Any) -> None:
    assert decision_of(body({}, {"resolution": given})) is None


@pytest.mark.parametrize(
    ("beside", "why"),
    [({"effect": "maybe"}, "happened or none"), ({"result": "{"}, "no JSON"), ({"result": "[1]"}, "a JSON object")],
)
def test_what_goes_with_a_decision_must_make_sense(beside: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        decided({"skip": "by hand", **beside}).request("r-1")


def test_an_amendment_is_named_beside_the_reason_and_in_the_spec() -> None:
    said = decided({"amend": "the customer wants it", "amendment": "refund"})
    assert (said.request("r").resolution, said.request("r").amendment) == (pb.RESOLUTION_AMEND, "refund")
    assert said.annotations == ("amends.dev/amend", "amends.dev/amendment")
    given = {"action": "Amend", "reason": "r", "actor": "ada", "expectedSeq": 7, "amendment": "refund"}
    assert decided({}, {"resolution": given}).request("r").amendment == "refund"
