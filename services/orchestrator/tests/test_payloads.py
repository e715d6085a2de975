"""What fits into an answer, to the byte; what does not fit is named with its size."""

from __future__ import annotations

import pytest
from amends_orchestrator.api.payloads import LARGEST, Form, Payloads, as_text

from amends.saga.v1 import run_pb2

SHOWN = {"text": "ü"}
OMITTED = {"@omitted": "9 bytes"}
AS_STRUCT = run_pb2.StepStatus()
AS_STRUCT.response.update(SHOWN)
SIZES = {Form.TEXT: len(as_text(SHOWN).encode()), Form.STRUCT: AS_STRUCT.response.ByteSize()}


def shown(payloads: Payloads, data: bytes = b"payload 9") -> dict[str, object] | str:
    """One payload, as a step's response and as a run's input: the same."""
    step, run = run_pb2.StepStatus(), run_pb2.Run()
    other = Payloads(payloads.form, payloads._left)
    payloads.show_response(step, data, lambda: SHOWN)
    other.show_input(run, data, lambda: SHOWN)
    assert (step.response_json, step.response) == (run.input_json, run.input)
    return step.response_json or dict(step.response)


@pytest.mark.parametrize("form", [Form.TEXT, Form.STRUCT])
def test_what_fits_to_the_byte_is_shown_and_takes_its_room(form: Form):
    size = SIZES[form]
    wanted, omitted = (as_text(SHOWN), as_text(OMITTED)) if form is Form.TEXT else (SHOWN, OMITTED)
    assert shown(Payloads(form, size)) == wanted
    assert shown(Payloads(form, size - 1)) == omitted
    twice = Payloads(form, 2 * size)
    assert [shown(twice), shown(twice), shown(twice)] == [wanted, wanted, omitted]


@pytest.mark.parametrize("form", [Form.TEXT, Form.STRUCT])
def test_a_payload_that_is_too_large_is_not_even_read(form: Form):
    def read() -> dict[str, object]:
        raise AssertionError("it is read")

    step = run_pb2.StepStatus()
    Payloads(form).show_response(step, b"x" * (LARGEST + 1), read)
    Payloads(form, 8).show_response(step, b"x" * 9, read)
    assert shown(Payloads(form), b"x" * LARGEST) != {"@omitted": f"{LARGEST:,} bytes"}


def test_without_a_form_nothing_is_shown():
    assert shown(Payloads()) == {}
