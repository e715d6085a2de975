"""Reads a participant's descriptors from its server reflection, v1 first, then v1alpha.

The messages of both versions are the same bytes on the wire, so the v1alpha classes serve for both. Files stay the
bytes that the server sent: only their names and imports are read here, and what they hold is counted and parsed where
it may take time. Called when a Participant is applied, and every minute after that.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc.aio
from amends_saga.descriptors.budget import BudgetError, imports_of, join_files, within_bytes
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

VERSIONS = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
TIMEOUT = timedelta(seconds=5)
_MAXIMUM_FILES = 2000
_SHOWN = 200
"""Characters of a server's text that people are shown."""


class ReflectionError(Exception):
    """The descriptors could not be read. The text is a sentence for people."""


# A server without the service may end the call while the question is written: for grpc.aio its own internal error.
_WITHOUT = frozenset({grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL})


async def reflect(channel: grpc.aio.Channel, service: str, timeout: timedelta = TIMEOUT) -> bytes:
    """The FileDescriptorSet, serialised, of all that a service needs, dependencies first. Raises ReflectionError."""
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


@dataclass(frozen=True, slots=True)
class _File:
    """A serialised FileDescriptorProto, and the names of what it imports."""

    data: bytes
    imports: list[str]


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
        self._files: dict[str, _File] = {}
        self._size = 0
        self._missing: deque[str] = deque()
        self._asked: set[str] = set()

    async def read(self, service: str) -> bytes:
        call = self._stream()
        try:
            self._keep(await _ask(call, ServerReflectionRequest(file_containing_symbol=service)), service)
            while self._missing:
                name = self._missing.popleft()
                if name not in self._files:
                    self._keep(await _ask(call, ServerReflectionRequest(file_by_filename=name)), name)
            if not self._files:
                raise ReflectionError(f"the server sent no descriptors for {service}")
            return join_files(self._files[name].data for name in _dependencies_first(self._files))
        finally:
            call.cancel()

    def _keep(self, answer: ServerReflectionResponse, asked: str) -> None:
        """Take the files of an answer. `asked` is what it was asked for."""
        if answer.HasField("error_response"):
            raise ReflectionError(f"the server does not know {_shown(asked)}")
        for data in answer.file_descriptor_response.file_descriptor_proto:
            try:
                self._size += len(data)
                within_bytes(self._size)
                name, imports = imports_of(data)
            except BudgetError as error:
                raise ReflectionError(f"its contract is too large: {error}") from None
            if not name:
                raise ReflectionError("the server sent a file that is no FileDescriptorProto")
            if name in self._files:
                continue
            if len(self._files) == _MAXIMUM_FILES:
                raise ReflectionError(f"the server's contract has more than {_MAXIMUM_FILES} files")
            self._files[name] = _File(data, imports)
            new = [imported for imported in imports if imported not in self._asked]
            self._asked.update(new)
            self._missing.extend(new)


async def _ask(call: Any, question: ServerReflectionRequest) -> ServerReflectionResponse:
    """One question and its answer. Raises AioRpcError as the server ended the call, or ReflectionError."""
    with suppress(asyncio.InvalidStateError):  # the call has ended already; reading says how
        await call.write(question)
    answer = await call.read()
    if not isinstance(answer, ServerReflectionResponse):
        raise ReflectionError("the server ended the conversation too early")
    return answer


def _dependencies_first(files: dict[str, _File]) -> list[str]:
    """The files' names, each after what it imports; of files that import each other one is first."""
    ordered: dict[str, None] = {}
    opened: set[str] = set()
    for root in sorted(files):
        waiting = [root]
        while waiting:
            name = waiting[-1]
            if name in opened:
                ordered.setdefault(waiting.pop())
                continue
            opened.add(name)
            waiting.extend(
                imported for imported in reversed(files[name].imports) if imported in files and imported not in opened
            )
    return list(ordered)


def _shown(text: str) -> str:
    """A name that a server made up, as people may see it."""
    return "".join(character if character.isprintable() else "?" for character in text[:_SHOWN])
