import io
import json
import logging

import structlog
from amends_chassis import logs
from amends_chassis.context import IncomingCall, Trace, enter_call
from amends_chassis.settings import LogFormat, LogLevel


def _lines(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def test_a_line_carries_run_step_operation_and_trace_of_the_call():
    stream = io.StringIO()
    logs.configure("payments", stream=stream)
    trace = Trace.begin(0.0)
    metadata = (("amends-run-id", "r-1"), ("amends-step", "charge"), ("amends-operation", "action"))
    enter_call(IncomingCall("/shop.payments.v1.PaymentService/Charge", metadata), trace)
    structlog.get_logger("x").info("card.charged", amount=5)
    (line,) = _lines(stream)
    assert (
        line.items()
        >= {
            "event": "card.charged",
            "amount": 5,
            "service": "payments",
            "level": "info",
            "method": "/shop.payments.v1.PaymentService/Charge",
            "run_id": "r-1",
            "step": "charge",
            "operation": "action",
            "trace_id": trace.trace_id,
        }.items()
    )
    assert line["timestamp"].endswith("Z")


def test_what_is_bound_by_hand_stays():
    stream = io.StringIO()
    logs.configure("orchestrator", stream=stream)
    with structlog.contextvars.bound_contextvars(run_id="mine"):
        structlog.get_logger("x").info("run.claimed")
    assert _lines(stream)[0]["run_id"] == "mine"


def test_lines_of_other_libraries_look_the_same():
    stream = io.StringIO()
    logs.configure("payments", stream=stream)
    logging.getLogger("grpc").warning("bad %s", "thing")
    (line,) = _lines(stream)
    assert (line["event"], line["level"], line["logger"], line["service"]) == (
        "bad thing",
        "warning",
        "grpc",
        "payments",
    )


def test_lines_below_the_level_are_dropped():
    stream = io.StringIO()
    logs.configure("payments", LogLevel.WARNING, stream=stream)
    structlog.get_logger("x").info("quiet")
    structlog.get_logger("x").warning("loud")
    assert [line["event"] for line in _lines(stream)] == ["loud"]


def test_an_exception_is_one_line_without_the_values_of_variables():
    stream = io.StringIO()
    logs.configure("payments", stream=stream)
    try:
        password = "hunter2"
        raise ValueError(len(password))
    except ValueError:
        structlog.get_logger("x").exception("failed")
    (line,) = _lines(stream)
    assert "ValueError: 7" in line["exception"]
    assert "'hunter2'" not in line["exception"]


def test_the_console_form_is_for_people():
    stream = io.StringIO()
    logs.configure("payments", form=LogFormat.CONSOLE, stream=stream)
    structlog.get_logger("x").info("card.charged", amount=5)
    assert "card.charged" in stream.getvalue()
    assert "amount=5" in stream.getvalue()
