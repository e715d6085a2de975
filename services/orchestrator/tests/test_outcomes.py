"""The table of outcomes, row by row; reasons of the barrier outrank codes, and nobody else can give them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from amends_orchestrator.calls.outcome import BARRIER_TRAILER, CODES, DOMAIN, classify, is_failure
from amends_orchestrator.calls.ports import Answer
from amends_saga.engine.events import PARKING_REASONS, Operation, Outcome
from amends_saga.plan import CallPlan, MethodKind

GUARDED = CallPlan("test.v1.Test", "Do", MethodKind.GUARDED)
PLAIN = [CallPlan("test.v1.Test", "Do", kind) for kind in (MethodKind.KEYED, MethodKind.IDEMPOTENT, MethodKind.ONCE)]
READ = CallPlan("test.v1.Test", "Do", MethodKind.READ)
NUMBERS = {name: number for number, name in CODES.items()}
REJECTED = {
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "FAILED_PRECONDITION",
    "OUT_OF_RANGE",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
    "UNIMPLEMENTED",
}


def answer(name: str, reason: str = "", *, ours: bool = True, barrier: bool = True, **trailers: str) -> Answer:
    if barrier:
        trailers[BARRIER_TRAILER] = "1"
    domain = (DOMAIN if ours else "shop.payments.v1") if reason else ""
    return Answer(NUMBERS[name], b"response" if name == "OK" else b"", "text", reason, domain, trailers)


def expected(name: str, kind: MethodKind) -> Outcome:
    if name == "OK":
        return Outcome.OK
    if name == "ALREADY_EXISTS" and kind.plain:
        return Outcome.UNKNOWN
    return Outcome.REJECTED if name in REJECTED else Outcome.UNKNOWN


@pytest.mark.parametrize("method", [GUARDED, *PLAIN, READ], ids=lambda method: method.kind.value)
@pytest.mark.parametrize("name", NUMBERS)
def test_each_status_is_classified_as_the_table_says(method: CallPlan, name: str):
    verdict = classify(method, Operation.ACTION, answer(name))
    assert verdict.outcome is expected(name, method.kind)
    assert verdict.response == (b"response" if name == "OK" else b"")


def test_a_number_that_is_no_status_is_unknown():
    assert classify(PLAIN[0], Operation.ACTION, Answer(77)).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize("reason", ["KEY_REUSED", "ACTION_UNKNOWN"])
@pytest.mark.parametrize("name", ["FAILED_PRECONDITION", "ABORTED", "UNAVAILABLE"])
def test_a_parking_reason_of_the_barrier_outranks_the_code(reason: str, name: str):
    verdict = classify(GUARDED, Operation.ACTION, answer(name, reason))
    assert (verdict.outcome, verdict.reason) == (Outcome.UNKNOWN, reason)


@pytest.mark.parametrize("reason", ["KEY_REUSED", "ACTION_UNKNOWN", "STEP_FENCED", "NOT_GUARDED"])
def test_nobody_else_can_give_a_reason_of_the_barrier(reason: str):
    verdict = classify(GUARDED, Operation.ACTION, answer("FAILED_PRECONDITION", reason, ours=False))
    assert (verdict.outcome, verdict.reason) == (Outcome.REJECTED, "")


@pytest.mark.parametrize("reason", ["KEY_REUSED", "ACTION_UNKNOWN", "STEP_FENCED", "NOT_GUARDED"])
@pytest.mark.parametrize("method", PLAIN, ids=lambda method: method.kind.value)
def test_a_reason_of_a_barrier_counts_from_a_guarded_method_alone(method: CallPlan, reason: str):
    verdict = classify(method, Operation.ACTION, answer("FAILED_PRECONDITION", reason))
    assert (verdict.outcome, verdict.reason) == (Outcome.REJECTED, "")


def test_a_participants_own_reason_is_kept():
    verdict = classify(GUARDED, Operation.ACTION, answer("FAILED_PRECONDITION", "CARD_DECLINED", ours=False))
    assert (verdict.outcome, verdict.reason) == (Outcome.REJECTED, "CARD_DECLINED")


def test_a_fenced_action_is_rejected_and_a_fenced_void_is_voided():
    fenced = answer("ABORTED", "STEP_FENCED")
    assert classify(GUARDED, Operation.ACTION, fenced)[:2] == (Outcome.REJECTED, "STEP_FENCED")
    assert classify(GUARDED, Operation.VOID, fenced).outcome is Outcome.VOIDED


def test_a_void_says_whether_the_operation_had_run():
    voided = classify(GUARDED, Operation.VOID, answer("OK", **{"amends-void": "voided"}))
    assert voided.outcome is Outcome.VOIDED
    done = classify(GUARDED, Operation.VOID, answer("OK", **{"amends-void": "already-done"}))
    assert (done.outcome, done.response) == (Outcome.OK, b"response")


def test_aborted_without_a_reason_of_ours_is_tried_again():
    assert classify(GUARDED, Operation.ACTION, answer("ABORTED")).outcome is Outcome.UNKNOWN
    assert classify(GUARDED, Operation.ACTION, answer("ABORTED", "CONFLICT", ours=False)).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize("name", ["OK", "FAILED_PRECONDITION", "NOT_FOUND", "ALREADY_EXISTS", "INVALID_ARGUMENT"])
def test_a_definite_answer_without_the_barriers_trailer_parks(name: str):
    verdict = classify(GUARDED, Operation.ACTION, answer(name, barrier=False))
    assert (verdict.outcome, verdict.reason) == (Outcome.UNKNOWN, "NOT_GUARDED")


@pytest.mark.parametrize("name", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "CANCELLED", "RESOURCE_EXHAUSTED"])
def test_an_answer_that_never_came_from_the_service_needs_no_trailer(name: str):
    verdict = classify(GUARDED, Operation.ACTION, answer(name, barrier=False))
    assert (verdict.outcome, verdict.reason) == (Outcome.UNKNOWN, "")


@pytest.mark.parametrize("name", ["PERMISSION_DENIED", "UNAUTHENTICATED", "UNIMPLEMENTED"])
def test_what_proxies_and_missing_methods_answer_is_rejected_without_a_trailer(name: str):
    assert classify(GUARDED, Operation.ACTION, answer(name, barrier=False)).outcome is Outcome.REJECTED


def test_a_participant_may_say_what_a_status_means():
    lenient = replace(PLAIN[1], outcomes={"NOT_FOUND": "ok", "ALREADY_EXISTS": "rejected", "UNAVAILABLE": "rejected"})
    assert classify(lenient, Operation.COMPENSATION, answer("NOT_FOUND"))[::2] == (Outcome.OK, b"")
    assert classify(lenient, Operation.ACTION, answer("ALREADY_EXISTS")).outcome is Outcome.REJECTED
    assert classify(lenient, Operation.ACTION, answer("UNAVAILABLE")).outcome is Outcome.REJECTED


def test_what_never_left_this_process_is_a_clean_rejection():
    unsent = Answer(8, reason="REQUEST_TOO_LARGE", sent=False)
    assert classify(GUARDED, Operation.ACTION, unsent)[:2] == (Outcome.REJECTED, "REQUEST_TOO_LARGE")


@pytest.mark.parametrize("call", Operation)
@pytest.mark.parametrize("method", [GUARDED, *PLAIN], ids=lambda method: method.kind.value)
def test_an_answer_that_is_too_large_is_no_rejection_and_is_parked_by_name(method: CallPlan, call: Operation):
    unread = Answer(8, message="the answer is too large", too_large=True)
    assert classify(method, call, unread)[:2] == (Outcome.UNKNOWN, "ANSWER_TOO_LARGE")
    assert "ANSWER_TOO_LARGE" in PARKING_REASONS
    assert not is_failure(unread)


def test_a_read_whose_answer_is_too_large_is_rejected():
    unread = Answer(8, message="the answer is too large", too_large=True)
    assert classify(READ, Operation.ACTION, unread)[:2] == (Outcome.REJECTED, "TOO_LARGE")


def test_only_a_service_that_did_not_answer_counts_against_it():
    assert not is_failure(Answer(8, sent=False))
    assert {CODES[code] for code in CODES if is_failure(Answer(code))} == {
        "CANCELLED", "UNKNOWN", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
    }  # fmt: skip
