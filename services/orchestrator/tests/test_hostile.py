"""Whatever stands in a request's fields: an answer in words, nothing half done, and no traceback in the log.

The fields are walked by descriptor, so a new one is tried as soon as it is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from amends.events.v1 import webhooks_pb2 as wpb
from amends.events.v1.webhooks_pb2_grpc import WebhookServiceStub
from amends.saga.v1 import definition_service_pb2 as dpb
from amends.saga.v1 import run_service_pb2 as pb

from .shop import INPUT, Client, open_shop, orchestrator

TEXTS = (
    "\0",
    "a\0b",
    "x" * 300,
    "x" * 100_000,
    "\x1b[31m\n",
    "\u202e",
    "' OR 1=1;--",
    "\uffff",
    "{",
    "[" * 3000,
    "NaN",
)
NUMBERS = {
    FieldDescriptor.CPPTYPE_INT32: (-1, -(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-1, -(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (99, -1, 2**31 - 1),
    FieldDescriptor.CPPTYPE_BOOL: (True,),
}
PARSED = ("text", "json_text", "result_json", "descriptors")
"""What a parser reads; it says itself what is wrong."""
NEVER = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


def hostile(message: Message, descriptor: Descriptor, path: str = "") -> Iterator[tuple[str, Message]]:
    """Copies of a message, each with one field that nobody means."""
    for field in descriptor.fields:
        for label, value in _values(field):
            copy = type(message)()
            copy.CopyFrom(message)
            _set(copy, field, value)
            yield f"{path}{field.name} {label}", copy
        kind = field.message_type
        if kind is None or field.is_repeated or kind.full_name == "google.protobuf.Struct":
            continue
        if message.HasField(field.name):
            for label, inner in hostile(getattr(message, field.name), kind, f"{path}{field.name}."):
                copy = type(message)()
                copy.CopyFrom(message)
                getattr(copy, field.name).CopyFrom(inner)
                yield label, copy


def _values(field: FieldDescriptor) -> Iterator[tuple[str, Any]]:
    values: tuple[Any, ...] = ()
    if field.type == FieldDescriptor.TYPE_STRING:
        values = TEXTS
    elif field.type == FieldDescriptor.TYPE_BYTES:
        values = (b"\xff\xff\xff", b"\xa2\x06\x03abc", b"\n\x02\xff\xfe", b"\0" * 300_000)
    elif field.message_type is not None and field.message_type.full_name == "google.protobuf.Struct":
        values = (float("nan"), float("inf"), 2.0**60, "no kind")
    elif field.message_type is None:
        values = NUMBERS[field.cpp_type]
    for value in values:
        yield repr(value)[:20], [value] * 20_000 if field.is_repeated else value
    if field.is_repeated and field.message_type is not None:
        yield "many", 300
        yield "a great many", 200_000


def _set(message: Any, field: FieldDescriptor, value: Any) -> None:
    here = getattr(message, field.name)
    if field.is_repeated and field.message_type is not None:
        for _ in range(value):
            here.add()
    elif field.is_repeated:
        here.extend(value)
    elif field.message_type is None:
        setattr(message, field.name, value)
    elif value == "no kind":
        here.fields["orderId"].SetInParent()
    else:
        here.fields["ratio"].number_value = value


def base(name: str) -> Message:
    """A request that says something in every message of it."""
    if name == "StartRun":
        request = pb.StartRunRequest(namespace="shop", saga="place-order", idempotency_key="k")
        request.json.update(INPUT)
        request.wait_timeout.seconds = 0
        return request
    made: Any = next(getattr(one, f"{name}Request") for one in (pb, dpb, wpb) if hasattr(one, f"{name}Request"))
    request = made()
    fields = request.DESCRIPTOR.fields_by_name
    for field, value in (("run_id", RUN), ("actor", "ada"), ("reason", "because"), ("resolution", 1)):
        if field in fields:
            setattr(request, field, value)
    if "manifest" in fields:
        request.manifest.text = "apiVersion: amends.dev/v1alpha1\nkind: Saga\n"
    if "since" in fields:
        request.since.seconds = 1_700_000_000
    if "event_id" in fields:
        request.event_id, request.decision = RUN, wpb.WEBHOOK_DECISION_SKIP
    if "refresh_every" in fields:
        request.refresh_every.seconds = 1
    return request


RUN = "018f0000-0000-7000-8000-000000000000"


@pytest.fixture
async def client(database_url: str) -> Any:
    async with open_shop() as shop, orchestrator(database_url) as client:
        await client.apply(shop)
        yield client


async def said_no(call: Any) -> grpc.aio.AioRpcError | None:
    try:
        if hasattr(call, "__await__"):
            await call
        else:
            [answer async for answer in call]
    except grpc.aio.AioRpcError as error:
        return error
    return None


async def test_no_field_of_any_request_can_make_the_server_fail(client: Client, capsys: pytest.CaptureFixture[str]):
    run = (await client.start("first")).run
    started, tried = {"first"}, 0
    capsys.readouterr()
    webhooks = WebhookServiceStub(client.channel)
    for stub, service in ((client.runs, pb), (client.definitions, dpb), (webhooks, wpb)):
        [described] = service.DESCRIPTOR.services_by_name.values()
        for method in described.methods:
            request = base(method.name)
            if "run_id" in method.input_type.fields_by_name:
                request.run_id = run.run_id  # type: ignore[attr-defined]
            for label, wrong in hostile(request, method.input_type):
                tried += 1
                if method.name == "StartRun" and "idempotency_key" not in label:
                    wrong.idempotency_key = f"k{tried}"  # type: ignore[attr-defined]
                refused = await said_no(getattr(stub, method.name)(wrong, timeout=10))
                if refused is not None:
                    assert refused.code() not in NEVER, f"{method.name} {label}: {refused.details()}"
                    assert refused.details(), f"{method.name} {label}: nothing said"
                if "\\x00" in label and label.split()[0].rpartition(".")[2] not in PARSED:
                    assert refused is not None, f"{method.name} {label}"
                    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT, f"{method.name} {label}"
                if refused is None and method.name == "StartRun":
                    started.add(wrong.idempotency_key)  # type: ignore[attr-defined]
    assert tried > 300
    assert "call.failed" not in capsys.readouterr().out
    kept = (await client.runs.ListRuns(pb.ListRunsRequest(page_size=1000))).runs
    assert {one.idempotency_key for one in kept} == started


@pytest.mark.parametrize(
    ("seconds", "nanos"),
    [(9 * 10**18, 0), (-9 * 10**18, 0), (0, 2**31 - 1), (0, 10**9), (1, -5), (-1, 5), (315_576_000_001, 0)],
)
async def test_a_wait_that_is_no_duration_is_refused_before_a_run_is_started(client: Client, seconds: int, nanos: int):
    request = base("StartRun")
    assert isinstance(request, pb.StartRunRequest)
    request.wait = True
    request.wait_timeout.seconds, request.wait_timeout.nanos = seconds, nanos
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.runs.StartRun(request, timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "wait_timeout" in (caught.value.details() or "")
    assert not (await client.runs.ListRuns(pb.ListRunsRequest())).runs
