"""Descriptors from server reflection: both versions, servers without it, servers that misbehave."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import grpc
import grpc.aio
import pytest
from amends_chassis.reflection import VERSIONS, ReflectionError, reflect
from amends_contracts import descriptor_set
from amends_saga.descriptors import ContractSet, parse_set
from amends_testkit.participant import FakeParticipant
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2 as pb

SERVICE = "shop.payments.v1.PaymentService"
FILES = {file.name: file for file in descriptor_set().file}


class Only(grpc.GenericRpcHandler):
    """A server that has one version of reflection alone, answering from our descriptors."""

    def __init__(self, version: str, answer) -> None:
        self._path = f"/{version}/ServerReflectionInfo"
        self._answer = answer

    def service(self, details: grpc.HandlerCallDetails):
        if details.method != self._path:
            return None

        async def converse(requests, context):
            async for request in requests:
                yield self._answer(request)

        return grpc.stream_stream_rpc_method_handler(
            converse,
            request_deserializer=pb.ServerReflectionRequest.FromString,
            response_serializer=pb.ServerReflectionResponse.SerializeToString,
        )


def honest(request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
    """One file an answer: the client has to ask for each dependency."""
    name = request.file_by_filename or "shop/payments/v1/payments.proto"
    if name not in FILES:
        return pb.ServerReflectionResponse(original_request=request, error_response=pb.ErrorResponse(error_code=5))
    response = pb.FileDescriptorResponse(file_descriptor_proto=[FILES[name].SerializeToString()])
    return pb.ServerReflectionResponse(original_request=request, file_descriptor_response=response)


@asynccontextmanager
async def serving(*handlers: grpc.GenericRpcHandler) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_server_with_one_version_is_read_with_all_it_imports(version: str):
    async with serving(Only(version, honest)) as channel:
        files = parse_set(await reflect(channel, SERVICE))
    names = [file.name for file in files.file]
    assert "shop/payments/v1/payments.proto" in names
    for at, file in enumerate(files.file):
        imported = {name for name in file.dependency if not name.startswith("google/protobuf/")}
        assert imported <= set(names[:at]), "dependencies come first"


async def test_the_library_of_other_servers_is_understood():
    async with (
        await FakeParticipant.start(descriptor_set(), [SERVICE]) as participant,
        grpc.aio.insecure_channel(participant.target) as channel,
    ):
        for _ in range(20):
            files = parse_set(await reflect(channel, SERVICE))
            assert any(service.name == "PaymentService" for file in files.file for service in file.service)


async def test_a_server_without_reflection_says_what_to_do():
    async with serving() as channel:
        for _ in range(20):
            with pytest.raises(ReflectionError, match="give its descriptors as a FileDescriptorSet"):
                await reflect(channel, SERVICE)


def unknown(request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
    return pb.ServerReflectionResponse(original_request=request, error_response=pb.ErrorResponse(error_code=5))


def garbage(request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
    response = pb.FileDescriptorResponse(file_descriptor_proto=[b"\xff\xff\xff"])
    return pb.ServerReflectionResponse(original_request=request, file_descriptor_response=response)


def empty(request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
    return pb.ServerReflectionResponse(original_request=request)


def endless(request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
    """Files of a megabyte, each of which imports the next."""
    asked = request.file_by_filename or "0"
    file = FileDescriptorProto(name=asked, dependency=[f"{int(asked) + 1}"], package="x" * 1_000_000)
    response = pb.FileDescriptorResponse(file_descriptor_proto=[file.SerializeToString()])
    return pb.ServerReflectionResponse(original_request=request, file_descriptor_response=response)


def crowded(request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
    """A file with a million empty messages."""
    file = FileDescriptorProto(name="crowded.proto").SerializeToString() + b"\x22\x00" * 1_000_000
    response = pb.FileDescriptorResponse(file_descriptor_proto=[file])
    return pb.ServerReflectionResponse(original_request=request, file_descriptor_response=response)


def without_options(request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
    """A server that has registered neither the well-known files nor those that only options need."""
    if request.file_by_filename.startswith(("google/", "amends/")):
        assert not request.file_by_filename.startswith("google/protobuf/"), "our own runtime has it"
        return unknown(request)
    return honest(request)


class OneAnswer(Only):
    """A server that ends each stream after one answer."""

    def service(self, details: grpc.HandlerCallDetails):
        handler = super().service(details)
        if handler is None:
            return None
        answer = self._answer

        async def converse(requests, context):
            async for request in requests:
                yield answer(request)
                return

        return grpc.stream_stream_rpc_method_handler(
            converse, handler.request_deserializer, handler.response_serializer
        )


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("answer", [honest, without_options])
@pytest.mark.parametrize("server", [Only, OneAnswer])
async def test_servers_that_know_less_or_end_early_are_read(server, version: str, answer):
    async with serving(server(version, answer)) as channel:
        contract = ContractSet(parse_set(await reflect(channel, SERVICE)))
    assert contract.method(SERVICE, "Charge") is not None
    assert not list(contract.dangling(SERVICE, "shop.payments.v1.ChargeRequest"))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (unknown, "does not know"),
        (garbage, "no FileDescriptorProto"),
        (empty, "no descriptors"),
        (endless, r"too large: The contract has [\d,]+ bytes, more than 8,388,608\."),
        (crowded, "too large: A file of the contract has more than 30,000"),
    ],
)
async def test_a_server_that_answers_badly_is_reported(answer, says: str):
    async with serving(Only(VERSIONS[0], answer)) as channel:
        with pytest.raises(ReflectionError, match=says):
            await reflect(channel, SERVICE)


async def test_a_server_that_is_not_there_is_unavailable_and_one_that_hangs_is_given_up():
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(ReflectionError, match="nothing listens there"):
            await reflect(channel, SERVICE)

    class Silent(Only):
        def service(self, details: grpc.HandlerCallDetails):
            async def converse(requests, context):
                async for _ in requests:
                    continue
                yield pb.ServerReflectionResponse()

            return grpc.stream_stream_rpc_method_handler(
                converse, response_serializer=pb.ServerReflectionResponse.SerializeToString
            )

    async with serving(Silent(VERSIONS[0], empty)) as channel:
        with pytest.raises(ReflectionError, match="did not answer"):
            await reflect(channel, SERVICE, timedelta(milliseconds=200))
