"""proto2 and editions, with real values from the start of a run to what its services receive."""

import json
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from amends_testkit.answers import ScriptedAnswer
from amends_testkit.participant import FakeParticipant
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessages

from amends.saga.v1 import run_pb2
from amends.saga.v1 import run_service_pb2 as pb

from .orchestrator import Api, orchestrator

PARTICIPANT = """\
apiVersion: amends.dev/v1alpha1
kind: Participant
metadata: {name: zoo}
spec: {service: %s, target: "%s", methods: ["*", {name: %s, idempotency: IDEMPOTENT}], callers: [default]}
"""
SAGA = """\
apiVersion: amends.dev/v1alpha1
kind: Saga
metadata: {name: zoo}
spec:
  input: %(package)s.%(input)s
  deadline: 60s
  steps:
%(steps)s
"""
TILL = """\
    - name: take
      call: %(package)s.Till/Take
      request: input
      compensate: {call: %(package)s.Till/Give, request: "Request{id: take.tx, serial: take.serial}"}
    - name: again
      call: %(package)s.Till/Take
      request: "Request{id: take.tx, size: take.size, quantity: input.quantity, gift: input.gift, serial: take.serial}"
      compensate: {call: %(package)s.Till/Give, request: "Request{id: again.tx}"}
    - name: last
      call: %(package)s.Till/Take
      request: "Request{id: again.tx, size: again.size}"
      compensate: {call: %(package)s.Till/Give, request: "Request{id: last.tx}"}
"""
ODD = """\
    - name: say
      call: zoo.odd.Odd/Say
      request: input
      compensate: {call: zoo.odd.Odd/Undo, request: say}
    - name: tell
      call: zoo.odd.Odd/Tell
      request: "Request{words: say, more: [say, input], note: say.DESCRIPTOR + input.Clear + say.`in`}"
      compensate: {call: zoo.odd.Odd/Undo, request: "size(tell.MergeFromString) > 0 ? tell.words : say"}
    - name: again
      call: zoo.odd.Odd/Say
      request: "Words{DESCRIPTOR: say.DESCRIPTOR, SerializeToString: tell.MergeFromString, self: say.self, class: 'c'}"
      compensate: {call: zoo.odd.Odd/Undo, request: again}
"""
LARGEST = 2**64 - 1


async def start(api: Api, data: dict[str, Any]) -> run_pb2.Run:
    request = pb.StartRunRequest(
        saga="zoo", namespace="default", idempotency_key="k", json_text=json.dumps(data), wait=True
    )
    answer = await api.runs.StartRun(request, timeout=30)
    run: run_pb2.Run = answer.run
    return run


def received(part: FakeParticipant, method: str) -> list[dict[str, Any]]:
    return [MessageToDict(call.request, preserving_proto_field_name=True) for call in part.calls(method)]


@pytest.mark.parametrize(("file", "package"), [("proto2.proto", "zoo.two"), ("editions.proto", "zoo.edition")])
async def test_presence_defaults_and_closed_enums_are_kept_end_to_end(
    compiled: Callable[..., bytes], database_url: str, file: str, package: str
) -> None:
    contract = FileDescriptorSet.FromString(compiled(file))
    async with await FakeParticipant.start(contract, [f"{package}.Till"]) as till, orchestrator(database_url) as api:
        saga = SAGA % {"package": package, "input": "Request", "steps": TILL % {"package": package}}
        await api.apply([PARTICIPANT % (f"{package}.Till", till.target, "Give")], [saga])
        till.script(
            "Take",
            ScriptedAnswer.ok(tx="t-1", size=2, serial=LARGEST),
            ScriptedAnswer.ok(tx="t-2"),
            ScriptedAnswer.refused(grpc.StatusCode.FAILED_PRECONDITION),
        )
        run = await start(api, {"id": "t-0", "wrap": {"paper": "red"}, "gift": False})
        assert run.state == run_pb2.RUN_STATE_COMPENSATED, run
        assert received(till, "Take") == [
            {"id": "t-0", "wrap": {"paper": "red"}, "gift": False},
            {"id": "t-1", "size": "LARGE", "quantity": 7, "gift": False, "serial": str(LARGEST)},
            {"id": "t-2"},
        ]
        assert received(till, "Give") == [{"id": "t-2"}, {"id": "t-1", "serial": str(LARGEST)}]
        with pytest.raises(grpc.aio.AioRpcError, match="id") as refused:
            await api.runs.StartRun(
                pb.StartRunRequest(saga="zoo", namespace="default", idempotency_key="none", json_text='{"gift": true}')
            )
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def data(message: Message) -> bytes:
    """Return the bytes of a message whose fields may be called like its methods."""
    return type(message).SerializeToString(message, deterministic=True)


async def test_fields_may_be_called_like_what_every_message_has(
    compiled: Callable[..., bytes], database_url: str
) -> None:
    contract = FileDescriptorSet.FromString(compiled("odd.proto"))
    made: dict[str, Any] = GetMessages(contract.file, pool=DescriptorPool())
    words, request = made["zoo.odd.Words"], made["zoo.odd.Request"]
    names = [field.name for field in words.DESCRIPTOR.fields]
    given = words(**{name: f"given {name}" for name in names})
    said = words(**{name: f"said {name}" for name in names})
    async with await FakeParticipant.start(contract, ["zoo.odd.Odd"]) as odd, orchestrator(database_url) as api:
        saga = SAGA % {"package": "zoo.odd", "input": "Words", "steps": ODD}
        await api.apply([PARTICIPANT % ("zoo.odd.Odd", odd.target, "Undo")], [saga])
        odd.script("Say", ScriptedAnswer.ok(said), ScriptedAnswer.refused(grpc.StatusCode.FAILED_PRECONDITION))
        odd.script("Tell", ScriptedAnswer.ok(made["zoo.odd.Merged"](MergeFromString="merged", words=said)))
        run = await start(api, {name: f"given {name}" for name in names})
        assert run.state == run_pb2.RUN_STATE_COMPENSATED, run
        again = words(DESCRIPTOR="said DESCRIPTOR", SerializeToString="merged", **{"self": "said self", "class": "c"})
        assert [data(call.request) for call in odd.calls("Say")] == [data(given), data(again)]
        tell = request(words=said, more=[said, given], note="said DESCRIPTORgiven Clearsaid in")
        assert [data(call.request) for call in odd.calls("Tell")] == [data(tell)]
        assert [data(call.request) for call in odd.calls("Undo")] == [data(said), data(said)]
        shown = (await api.runs.GetRun(pb.GetRunRequest(run_id=run.run_id))).run
        assert set(MessageToDict(shown.input).values()) == {f"given {name}" for name in names}
        assert MessageToDict(shown.steps[1].response)["MergeFromString"] == "merged"
