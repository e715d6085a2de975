"""Reads a participant's descriptors from its server reflection, v1 first, then v1alpha.

The messages of both versions are the same bytes on the wire, so the v1alpha classes serve for both. Called when a
Participant is applied, and every minute after that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import grpc.aio
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

VERSIONS = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
TIMEOUT = timedelta(seconds=5)
_MAXIMUM_FILES = 2000


class ReflectionError(Exception):
    """The descriptors could not be read. The text is a sentence for people."""


# A server without the service may end the call while the question is written: for grpc.aio its own internal error.
_WITHOUT = frozenset({grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL})


async def reflect(channel: grpc.aio.Channel, service: str, timeout: timedelta = TIMEOUT) -> FileDescriptorSet:
    """All files that a service needs, dependencies first. Raises ReflectionError."""
    refused = ""
    for version in VERSIONS:
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                return await _Conversation(channel, version).read(service)
        except grpc.aio.AioRpcError as error:
            if error.code() not in _WITHOUT:
                raise ReflectionError(f"the server could not be asked: {error.code().name}") from None
            refused = "the server has no reflection; give its descriptors as a FileDescriptorSet"
            if error.code() is grpc.StatusCode.INTERNAL:
                refused += " (or it failed: INTERNAL)"
        except TimeoutError:
            raise ReflectionError(f"the server did not answer within {timeout.total_seconds():g} s") from None
    raise ReflectionError(refused)


class _Conversation:
    """One reflection stream: asks for files, one after the other, until no dependency is missing.

    Reads and writes by hand: with an iterator of requests a server without the service can end the call between two
    writes, and grpc.aio then tells of an internal error instead of UNIMPLEMENTED.
    """

    def __init__(self, channel: grpc.aio.Channel, version: str) -> None:
        self._stream = channel.stream_stream(
            f"/{version}/ServerReflectionInfo",
            request_serializer=ServerReflectionRequest.SerializeToString,
            response_deserializer=ServerReflectionResponse.FromString,
        )
        self._files: dict[str, FileDescriptorProto] = {}

    async def read(self, service: str) -> FileDescriptorSet:
        call = self._stream()
        asked: set[str] = set()
        try:
            self._keep(await _ask(call, ServerReflectionRequest(file_containing_symbol=service)), service)
            while missing := sorted(self._missing() - asked):
                asked.add(missing[0])
                self._keep(await _ask(call, ServerReflectionRequest(file_by_filename=missing[0])), service)
            if not self._files:
                raise ReflectionError(f"the server sent no descriptors for {service}")
            return FileDescriptorSet(file=_dependencies_first(self._files.values()))
        finally:
            call.cancel()

    def _keep(self, answer: ServerReflectionResponse, service: str) -> None:
        if answer.HasField("error_response"):
            asked = answer.original_request.file_by_filename or service
            raise ReflectionError(f"the server does not know {asked}")
        for data in answer.file_descriptor_response.file_descriptor_proto:
            try:
                file = FileDescriptorProto.FromString(data)
            except DecodeError:
                raise ReflectionError("the server sent a file that is no FileDescriptorProto") from None
            self._files.setdefault(file.name, file)
        if len(self._files) > _MAXIMUM_FILES:
            raise ReflectionError(f"the server's contract has more than {_MAXIMUM_FILES} files")

    def _missing(self) -> set[str]:
        return {name for file in self._files.values() for name in file.dependency if name not in self._files}


async def _ask(call: Any, question: ServerReflectionRequest) -> ServerReflectionResponse:
    """One question and its answer. Raises AioRpcError as the server ended the call, or ReflectionError."""
    with suppress(asyncio.InvalidStateError):  # the call has ended already; reading says how
        await call.write(question)
    answer = await call.read()
    if not isinstance(answer, ServerReflectionResponse):
        raise ReflectionError("the server ended the conversation too early")
    return answer


def _dependencies_first(files: Iterable[FileDescriptorProto]) -> list[FileDescriptorProto]:
    by_name = {file.name: file for file in files}
    ordered: dict[str, FileDescriptorProto] = {}
    for name in sorted(by_name):
        stack = [(name, iter(by_name[name].dependency))]
        opened = {name}
        while stack:
            current, rest = stack[-1]
            following = next((d for d in rest if d in by_name and d not in ordered and d not in opened), None)
            if following is None:
                ordered[current] = by_name[current]
                stack.pop()
            else:
                opened.add(following)
                stack.append((following, iter(by_name[following].dependency)))
    return list(ordered.values())
