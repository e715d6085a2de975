"""What a stranger may try: each attack sends what is too much, and says how it has to end."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import grpc.aio
import pytest
from amends_contracts import descriptor_set
from amends_contracts.budget import join_files
from amends_testkit.answers import ScriptedAnswer
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_reflection.v1alpha import reflection_pb2

from amends.saga.v1 import definition_service_pb2 as dpb
from amends.saga.v1 import run_pb2
from amends.saga.v1 import run_service_pb2 as pb
from amends.saga.v1.run_service_pb2_grpc import RunServiceStub

from .scene import UNLIMITED, Scene

Attack = Callable[[Scene], Awaitable[None]]
EVIL = "evil.v1.Evil"
HANGS = timedelta(seconds=30)


def _evil(file: FileDescriptorProto) -> FileDescriptorProto:
    file.name, file.package, file.syntax = "evil.proto", "evil.v1", "proto3"
    message = file.message_type.add(name="M")
    message.field.add(name="a", number=1, label=1, type=9)
    file.service.add(name="Evil").method.add(name="Do", input_type=".evil.v1.M", output_type=".evil.v1.M")
    return file


async def _refused_contract(scene: Scene, file: FileDescriptorProto, says: str) -> None:
    data = FileDescriptorSet(file=[file]).SerializeToString()
    answer = await scene.apply_participant("evil", "127.0.0.1:1", service=EVIL, descriptors=data)
    assert not answer.accepted
    assert any(says in finding.message for finding in answer.findings), answer.findings


async def reserved_ranges(scene: Scene) -> None:
    """A message with 190,000 reserved ranges, in 2 MB, three times at once."""
    file = _evil(FileDescriptorProto())
    for i in range(190_000):
        file.message_type[0].reserved_range.add(start=2 * i + 10, end=2 * i + 11)
    await asyncio.gather(*(_refused_contract(scene, file, "reserved ranges") for _ in range(3)))


async def many_of_each(scene: Scene) -> None:
    """Contracts with as much of something as four megabytes hold."""
    enums = _evil(FileDescriptorProto())
    enum = enums.enum_type.add(name="E")
    for i in range(100_000):
        enum.value.add(name=f"V{i}", number=i)
    await _refused_contract(scene, enums, "enum values")
    data = join_files([_evil(FileDescriptorProto()).SerializeToString() + b"\x22\x00" * 1_900_000])
    answer = await scene.apply_participant("evil", "127.0.0.1:1", service=EVIL, descriptors=data)
    assert not answer.accepted


async def chain(scene: Scene) -> None:
    """Two thousand messages, each of which leads to the next: a saga that uses them is refused."""
    file = _evil(FileDescriptorProto())
    file.message_type[0].field.add(name="z", number=2, label=1, type=11, type_name=".evil.v1.M0")
    for i in range(2_000):
        message = file.message_type.add(name=f"M{i}")
        if i < 1_999:
            message.field.add(name="z", number=1, label=1, type=11, type_name=f".evil.v1.M{i + 1}")
    data = FileDescriptorSet(file=[file]).SerializeToString()
    assert (await scene.apply_participant("chain", "127.0.0.1:1", service=EVIL, descriptors=data)).accepted
    text = f"""
apiVersion: amends.dev/v1alpha1
kind: Saga
metadata: {{name: chain, namespace: strange}}
spec:
  input: {{a: string}}
  deadline: 60s
  steps: [{{name: s, pivot: true, call: {EVIL}/Do, request: "M{{a: input.a}}"}}]
"""
    answer = await scene.definitions.ApplySaga(dpb.ApplySagaRequest(manifest=dpb.Manifest(text=text)), timeout=60)
    assert any("deep" in finding.message for finding in answer.findings), answer.findings


class _Reflection(grpc.GenericRpcHandler):
    """A server that answers reflection with files of 3 MB, each of which imports another."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if not details.method.endswith("/ServerReflectionInfo"):
            return None

        async def converse(requests: Any, context: Any) -> Any:
            async for request in requests:
                asked = int(request.file_by_filename or "0")
                file = FileDescriptorProto(name=str(asked), dependency=[str(asked + 1)], package="x" * 3_000_000)
                response = reflection_pb2.FileDescriptorResponse(file_descriptor_proto=[file.SerializeToString()])
                yield reflection_pb2.ServerReflectionResponse(file_descriptor_response=response)

        return grpc.stream_stream_rpc_method_handler(
            converse,
            request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
            response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
        )


async def endless_reflection(scene: Scene) -> None:
    """Reflection that never ends, asked for five times at once."""
    server = grpc.aio.server(options=UNLIMITED)
    server.add_generic_rpc_handlers((_Reflection(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        target = f"127.0.0.1:{port}"
        answers = await asyncio.gather(
            *(scene.apply_participant(f"endless-{i}", target, service=EVIL) for i in range(5))
        )
        assert [answer.participant.ready for answer in answers] == [False] * 5
        assert all("too large" in answer.participant.message for answer in answers)
    finally:
        await server.stop(None)


async def many_values(scene: Scene) -> None:
    """Twenty-five texts of 49,000 lists each, in one call of 3.7 MB, and four such calls."""
    many = [dpb.Manifest(text="[" + "[]," * 49_000 + "]", source=f"{i}.yaml") for i in range(25)]
    request = dpb.CheckSagaRequest(manifests=many)
    answers = await asyncio.gather(*(scene.definitions.CheckSaga(request, timeout=60) for _ in range(4)))
    for answer in answers:
        assert any(finding.code == "AM003" for finding in answer.findings)


async def quarrelling_policies(scene: Scene) -> None:
    """Three policies of 300 services and 300 methods each, listed again and again."""
    services = ", ".join(f"s{i}.v1.S" for i in range(300))
    methods = ", ".join(f"M{i}" for i in range(300))
    for name in ("a", "b", "c"):
        text = (
            f"apiVersion: amends.dev/v1alpha1\nkind: RetryPolicy\nmetadata: {{name: {name}, namespace: strange}}\n"
            f"spec: {{selector: {{participants: [{services}], methods: [{methods}]}}}}\n"
        )
        request = dpb.ApplyRetryPolicyRequest(manifest=dpb.Manifest(text=text))
        answer = await scene.definitions.ApplyRetryPolicy(request, timeout=60)
        assert answer.accepted, answer.findings
    for _ in range(20):
        listed = await scene.definitions.ListRetryPolicies(dpb.ListRetryPoliciesRequest(), timeout=60)
        assert [len(policy.conflicts) for policy in listed.retry_policies] == [2, 2, 2]


async def squatter(scene: Scene) -> None:
    """A second Participant for the honest service, and then the honest one is deleted and applied anew."""
    assert (await scene.apply_participant("payments", scene.hanging.target, namespace="strange")).accepted
    await scene.honest_orders(5)
    assert (await scene.apply_participant("payments", scene.honest.target, namespace="shop")).accepted
    await scene.honest_orders(5)
    assert not scene.hanging.calls("Charge")
    request = dpb.DeleteParticipantRequest(namespace="strange", name="payments")
    await scene.definitions.DeleteParticipant(request, timeout=60)


async def large_runs(scene: Scene) -> None:
    """Sixty runs of 200 KB, whose participant never answers, and sixty starts of 3.9 MB."""
    scene.hanging.script("Charge", ScriptedAnswer.ok().after(HANGS))
    assert (await scene.apply_participant("payments", scene.hanging.target, namespace="web")).accepted
    await scene.apply_saga("large", "web")

    refused: list[grpc.StatusCode] = []

    async def start(size: int) -> None:
        field = b"\x0a" + _varint(size) + b"x" * size
        wanted = pb.StartRunRequest(namespace="web", saga="large", idempotency_key=uuid4().hex, binary=field)
        try:
            await scene.runs.StartRun(wanted, timeout=60)
        except grpc.aio.AioRpcError as error:
            refused.append(error.code())

    for _ in range(10):
        await asyncio.gather(*(start(200_000) for _ in range(6)))
        await asyncio.gather(*(start(3_900_000) for _ in range(6)))
    assert set(refused) <= {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
    await scene.honest_orders(40)


async def never_send(scene: Scene) -> None:
    """Two thousand calls that are opened and never send a message."""
    async with grpc.aio.insecure_channel(scene.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        method: Any = channel.stream_unary("/amends.saga.v1.RunService/StartRun")
        calls = [method() for _ in range(2_000)]
        await scene.honest_orders(60)
        for call in calls:
            call.cancel()


async def hostile_connections(scene: Scene) -> None:
    """Fifty connections, each of which opens four hundred calls and sends nothing."""
    command = [sys.executable, str(Path(__file__).with_name("flood.py")), scene.address, "50", "400"]
    flood = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    assert flood.stdin is not None
    assert flood.stdout is not None
    assert await asyncio.wait_for(flood.stdout.readline(), 60) == b"open\n"
    await scene.honest_orders(100)
    flood.stdin.close()
    assert await asyncio.wait_for(flood.wait(), 60) == 0


async def watchers_of_a_parked_run(scene: Scene) -> None:
    """Two thousand watchers of a run that waits for a person, none of whom reads."""
    scene.hanging.script("CloseDispute", ScriptedAnswer.refused(grpc.StatusCode.FAILED_PRECONDITION))
    scene.hanging.script("Charge", ScriptedAnswer.ok())
    assert (await scene.apply_participant("payments", scene.hanging.target, namespace="web")).accepted
    await scene.apply_saga("parked", "web", behind_the_pivot="CloseDispute")
    wanted = pb.StartRunRequest(namespace="web", saga="parked", idempotency_key=uuid4().hex, binary=b"\x0a\x01x")
    wanted.wait = True
    begun = await scene.runs.StartRun(wanted, timeout=60)
    assert begun.run.state == run_pb2.RUN_STATE_PARKED, begun.run
    await _watch(scene, begun.run.run_id, 2_000)


async def many_states(scene: Scene) -> None:
    """A list of runs in a million states, five times at once."""
    request = pb.ListRunsRequest(states=[run_pb2.RUN_STATE_RUNNING] * 1_000_000)

    async def ask() -> None:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await scene.runs.ListRuns(request, timeout=60)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    await asyncio.gather(*(ask() for _ in range(5)))


async def watchers(scene: Scene) -> None:
    """A thousand watchers of one run, none of whom reads: some are refused."""
    scene.hanging.script("Charge", ScriptedAnswer.ok().after(HANGS))
    assert (await scene.apply_participant("payments", scene.hanging.target, namespace="web")).accepted
    await scene.apply_saga("watched", "web")
    wanted = pb.StartRunRequest(namespace="web", saga="watched", idempotency_key=uuid4().hex, binary=b"\x0a\x01x")
    begun = await scene.runs.StartRun(wanted, timeout=60)
    await _watch(scene, begun.run.run_id, 1_000)


async def _watch(scene: Scene, run_id: str, count: int) -> None:
    request = pb.WatchRunRequest(run_id=run_id)
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(scene.address, options=options) for _ in range(count // 100)]
    calls: list[Any] = [RunServiceStub(channels[i % len(channels)]).WatchRun(request) for i in range(count)]
    await scene.honest_orders(100)
    for channel in channels:
        await channel.close()
    assert all(call.done() for call in calls)


def _varint(size: int) -> bytes:
    written = bytearray()
    while size > 127:
        written.append(size & 127 | 128)
        size >>= 7
    return bytes([*written, size])


async def foreign_saga(scene: Scene) -> None:
    """The shop's whole contract with an answer that a stranger chose, applied by reflection and listed."""
    data = descriptor_set().SerializeToString()
    for i in range(20):
        assert (await scene.apply_participant(f"copy-{i}", "127.0.0.1:1", descriptors=data)).accepted
    for _ in range(5):
        await scene.definitions.ListParticipants(dpb.ListParticipantsRequest(), timeout=60)
    for i in range(20):
        request = dpb.DeleteParticipantRequest(namespace="strange", name=f"copy-{i}")
        await scene.definitions.DeleteParticipant(request, timeout=60)


ATTACKS: tuple[Attack, ...] = (
    reserved_ranges,
    many_of_each,
    chain,
    endless_reflection,
    many_values,
    quarrelling_policies,
    squatter,
    large_runs,
    never_send,
    hostile_connections,
    many_states,
    watchers,
    watchers_of_a_parked_run,
    foreign_saga,
)
QUICK: tuple[Attack, ...] = (reserved_ranges, many_values, squatter)
