import asyncio
from datetime import timedelta

import pytest
from amends_chassis.context import (
    IncomingCall,
    Trace,
    current_trace,
    detached,
    in_trace,
    sampled,
    trace_from,
    traceparent,
)
from amends_resilience import deadline
from hypothesis import given
from hypothesis import strategies as st

HEADER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_header_comes_back_as_it_was():
    trace = Trace.parse(HEADER)
    assert trace is not None
    assert (trace.traceparent, trace.sampled) == (HEADER, True)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "rubbish",
        HEADER[:-1],
        HEADER.upper(),
        "ff" + HEADER[2:],
        "00-" + "0" * 32 + HEADER[35:],
        HEADER[:36] + "0" * 16 + "-01",
    ],
)
def test_a_malformed_header_is_as_good_as_none(header):
    assert Trace.parse(header) is None
    assert trace_from([("traceparent", header)], 0.0).trace_id not in header


def test_a_header_of_a_later_version_is_read_as_far_as_it_is_known():
    trace = Trace.parse("01" + HEADER[2:] + "-more")
    assert trace is not None
    assert trace.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"


@given(st.text(max_size=80))
def test_no_header_breaks_the_reader(header):
    trace = Trace.parse(header)
    assert trace is None or Trace.parse(trace.traceparent) is not None


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_the_first_service_decides_and_later_ones_keep_to_it(ratio):
    first = trace_from([], ratio)
    second = trace_from(first.metadata(), 1.0 - ratio)
    assert first.sampled is second.sampled is (ratio == 1.0)
    assert first.trace_id == second.trace_id


def test_the_state_of_other_vendors_is_handed_on():
    trace = trace_from([("traceparent", HEADER), ("tracestate", "vendor=1")], 0.0)
    assert trace.metadata() == (("traceparent", HEADER), ("tracestate", "vendor=1"))


def test_a_block_in_a_trace_leaves_the_outer_one_as_it_was():
    with in_trace(HEADER):
        assert traceparent() == HEADER
        assert sampled()
        with in_trace("rubbish"):
            assert traceparent() is None
        assert traceparent() == HEADER
    assert current_trace() is None


async def test_work_that_outlives_its_call_keeps_the_trace_and_loses_the_deadline():
    async def look():
        return traceparent(), deadline.remaining()

    with in_trace(HEADER), deadline.scope(timedelta(seconds=1)):
        inherited = await asyncio.create_task(look())
        freed = await asyncio.create_task(look(), context=detached())
    assert inherited[1] is not None
    assert freed == (HEADER, None)


def test_a_call_knows_its_metadata():
    call = IncomingCall("/a.B/C", (("amends-step", "charge"), ("raw-bin", b"x")))
    assert (call.value("amends-step"), call.value("raw-bin"), call.value("other")) == ("charge", "x", None)
