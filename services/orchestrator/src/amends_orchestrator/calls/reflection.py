"""Reads a participant's descriptors from its server reflection, v1 first, then v1alpha.

The messages of both versions are the same bytes on the wire, so the v1alpha classes serve for both. Called when a
Participant is applied, and every minute after that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta

import grpc.aio
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

VERSIONS = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
TIMEOUT = timedelta(seconds=5)
_MAXIMUM_FILES = 2000


class ReflectionError(Exception):
    """The descriptors could not be read. The text is a sentence for people."""


async def reflect(channel: grpc.aio.Channel, service: str, timeout: timedelta = TIMEOUT) -> FileDescriptorSet:
    """All files that a service needs, dependencies first. Raises ReflectionError."""
    refused = ""
    for version in VERSIONS:
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                return await _Conversation(channel, version).read(service)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise ReflectionError(f"the server could not be asked: {error.code().name}") from None
            refused = "the server has no reflection; give its descriptors as a FileDescriptorSet"
        except TimeoutError:
            raise ReflectionError(f"the server did not answer within {timeout.total_seconds():g} s") from None
    raise ReflectionError(refused)


class _Conversation:
    """One reflection stream: asks for files until no dependency is missing."""

    def __init__(self, channel: grpc.aio.Channel, version: str) -> None:
        self._stream = channel.stream_stream(
            f"/{version}/ServerReflectionInfo",
            request_serializer=ServerReflectionRequest.SerializeToString,
            response_deserializer=ServerReflectionResponse.FromString,
        )
        self._questions: asyncio.Queue[ServerReflectionRequest | None] = asyncio.Queue()
        self._files: dict[str, FileDescriptorProto] = {}

    async def read(self, service: str) -> FileDescriptorSet:
        call = self._stream(self._ask())
        self._questions.put_nowait(ServerReflectionRequest(file_containing_symbol=service))
        waiting: set[str] = set()
        try:
            while True:
                answer = await call.read()
                if not isinstance(answer, ServerReflectionResponse):
                    raise ReflectionError("the server ended the conversation too early")
                waiting -= self._keep(answer, service)
                for name in self._missing() - waiting:
                    waiting.add(name)
                    self._questions.put_nowait(ServerReflectionRequest(file_by_filename=name))
                if not waiting:
                    return FileDescriptorSet(file=_dependencies_first(self._files.values()))
        finally:
            self._questions.put_nowait(None)
            call.cancel()

    async def _ask(self) -> AsyncIterator[ServerReflectionRequest]:
        while (question := await self._questions.get()) is not None:
            yield question

    def _keep(self, answer: ServerReflectionResponse, service: str) -> set[str]:
        """Keeps the files of an answer and returns their names."""
        if answer.HasField("error_response"):
            asked = answer.original_request.file_by_filename or service
            raise ReflectionError(f"the server does not know {asked}")
        kept: set[str] = set()
        for data in answer.file_descriptor_response.file_descriptor_proto:
            try:
                file = FileDescriptorProto.FromString(data)
            except DecodeError:
                raise ReflectionError("the server sent a file that is no FileDescriptorProto") from None
            self._files.setdefault(file.name, file)
            kept.add(file.name)
        if len(self._files) > _MAXIMUM_FILES:
            raise ReflectionError(f"the server's contract has more than {_MAXIMUM_FILES} files")
        asked = answer.original_request.file_by_filename
        return kept | ({asked} if asked else set())

    def _missing(self) -> set[str]:
        return {name for file in self._files.values() for name in file.dependency if name not in self._files}


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
