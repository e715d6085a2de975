"""Texts of others reach a terminal through `kubectl`: nothing in a status or an event does anything there."""

from collections.abc import Iterator
from typing import Any

import grpc.aio
from amends_chassis.text import UNSAFE
from amends_operator.definitions.findings import condition_message, status_entries
from amends_operator.kube.conditions import Condition
from amends_operator.orchestrator import OrchestratorRefusedError, SeenRun, error_of
from amends_operator.runs import reports
from amends_operator.runs.decisions import decision_of
from amends_operator.runs.next_step import next_step
from amends_operator.runs.observed import Missing, OrchestratorAnswer, OrchestratorRefusal
from amends_operator.runs.spec import problems_of
from amends_operator.runs.steps import CarryOut, Do
from amends_operator.runs.view import conditions_of, fields_of, timeline_of
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from amends.saga.v1 import definition_service_pb2 as definitions
from amends.saga.v1 import run_pb2

from .test_next_step import but, parked

EVIL = "declined\n2026-01-01  7  ENDED COMPLETED\x1b[2K\u202e"


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts(inner)
    elif isinstance(value, Condition):
        yield from (value.reason, value.message)


def harmful(value: Any, *, lines: bool = False) -> list[str]:
    return [text for text in texts(value) if UNSAFE.search(text.replace("\n", "") if lines else text)]


def fill(message: Message, depth: int = 3) -> None:
    """Put a hostile text into every field that takes one, and an entry into every list of messages."""
    for field in message.DESCRIPTOR.fields:
        if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
            setattr(message, field.name, EVIL)
        elif depth and field.message_type is not None and field.message_type.full_name.startswith("amends."):
            if field.is_repeated:
                fill(getattr(message, field.name).add(), depth - 1)
            else:
                fill(getattr(message, field.name), depth - 1)


def test_nothing_of_a_run_is_harmful() -> None:
    run, event = run_pb2.Run(), run_pb2.RunEvent()
    fill(run)
    fill(event)
    run.run_id = run.digest = run.parked.reason = run.parked.step = run.stalled.step = run.amendment = "a"
    run.failure.cause = run.failure.step = run.failure.code = "a"
    for choice in run.parked.choices:
        choice.amendment = "a"
    for step in run.steps:
        step.name = "a"
    assert EVIL in (run.message, run.parked.message, run.stalled.reason, run.steps[0].message, event.actor)
    accepted = Condition("Accepted", True, "Accepted")
    assert harmful([fields_of(run), timeline_of([event]), conditions_of(run, accepted)]) == []


def test_nothing_of_a_finding_is_harmful() -> None:
    finding = definitions.Finding()
    fill(finding)
    finding.code, finding.severity = "AM028", definitions.SEVERITY_ERROR
    assert harmful(status_entries([finding])) == []
    assert "\n" not in condition_message([finding])
    assert harmful(condition_message([finding, finding]), lines=True) == []


def said(steps: Any) -> Iterator[str]:
    for step in steps:
        yield from texts([getattr(step, name) for name in type(step).__slots__ if name != "facts"])


def test_nothing_of_a_decision_is_harmful_and_the_journal_gets_it_as_it_was_written() -> None:
    case = parked(skip=EVIL, actor=EVIL)
    decision = decision_of(case.observed().body)
    assert decision is not None
    assert decision.request("r-1").reason == EVIL
    call = CarryOut(decision, "r-1", False)
    answer = OrchestratorAnswer(call, OrchestratorRefusal("STATE_CHANGED", "no"))
    run = run_pb2.Run(run_id="r-1", state=run_pb2.RUN_STATE_PARKED)
    steps: list[Do] = [*next_step(but(case, run=SeenRun(run), answer=answer).observed())]
    assert [text for text in said(steps) if UNSAFE.search(text)] == []


def test_nothing_that_the_orchestrator_answers_is_harmful() -> None:
    metadata = grpc.aio.Metadata()
    error = error_of(grpc.aio.AioRpcError(grpc.StatusCode.FAILED_PRECONDITION, metadata, metadata, details=EVIL))
    assert isinstance(error, OrchestratorRefusedError)
    assert not UNSAFE.search(str(error))


def test_nothing_of_a_spec_is_harmful() -> None:
    assert harmful(problems_of({"saga": "a", EVIL: 1, "resolution": {EVIL: 1}})) == []


def test_a_lost_run_is_told_in_one_line() -> None:
    report = reports.lost(parked().observed(), Missing("RUN_UNKNOWN: there is none").why)
    assert harmful([dict(report.fields), list(report.conditions)]) == []
