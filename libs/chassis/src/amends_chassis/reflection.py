"""Reads a participant's descriptors from its server reflection, v1 first, then v1alpha.

The messages of both versions are the same bytes on the wire, so the v1alpha classes serve for both. The files stay the
bytes that the server sent: only their names and imports are read here. Counting and parsing their content happens where
it may take time. Called by the orchestrator when a Participant is applied, and every minute after that, and by the
command line.
"""

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc.aio
from amends_contracts.budget import BudgetError, imports_of, join_files, within_bytes
from amends_contracts.wellknown import well_known_file
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from amends_chassis.dial import cause
from amends_chassis.text import brief

VERSIONS = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
TIMEOUT = timedelta(seconds=5)
_MAXIMUM_FILES = 2000


class ReflectionError(Exception):
    """The descriptors could not be read. The text is a sentence for people."""


# A server without the service may end the call while the question is written: for grpc.aio its own internal error.
_WITHOUT = frozenset({grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL})


async def reflect(channel: grpc.aio.Channel, service: str, timeout: timedelta = TIMEOUT) -> bytes:
    """Return the serialised FileDescriptorSet that a service needs, imports first. Raises ReflectionError."""
    refused = ""
    for version in VERSIONS:
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                return await _Conversation(channel, version).read(service)
        except grpc.aio.AioRpcError as error:
            if error.code() not in _WITHOUT:
                why = cause(error.details() or "") or error.code().name
                raise ReflectionError(f"the server could not be asked: {why}") from None
            refused = "the server has no reflection; give its descriptors as a FileDescriptorSet"
            if error.code() is grpc.StatusCode.INTERNAL:
                refused += " (or it failed: INTERNAL)"
        except TimeoutError:
            raise ReflectionError(f"the server did not answer within {timeout.total_seconds():g} s") from None
    raise ReflectionError(refused)


@dataclass(frozen=True, slots=True)
class _File:
    """A serialised FileDescriptorProto, with its name and the names of the files that it imports."""

    data: bytes
    imports: list[str]


class _Conversation:
    """Asks for files one after the other until no import is missing.

    All questions go over one stream; if the server ends the stream after an answer, the next question opens a new one.
    Well-known files are never asked for, because our own runtime has them. A file that the server does not know is left
    out: if only options need it nothing is lost, and if a type is missing the checker names it.

    It reads and writes the stream by hand. With an iterator of requests, a server without the service can end the call
    between two writes, and grpc.aio would then report an internal error instead of UNIMPLEMENTED.
    """

    def __init__(self, channel: grpc.aio.Channel, version: str) -> None:
        self._stream = channel.stream_stream(
            f"/{version}/ServerReflectionInfo",
            request_serializer=ServerReflectionRequest.SerializeToString,
            response_deserializer=ServerReflectionResponse.FromString,
        )
        self._call: Any = None
        self._files: dict[str, _File] = {}
        self._size = 0
        self._missing: deque[str] = deque()
        self._asked: set[str] = set()

    async def read(self, service: str) -> bytes:
        try:
            answer = await self._ask(ServerReflectionRequest(file_containing_symbol=service))
            if answer.HasField("error_response"):
                raise ReflectionError(f"the server does not know {brief(service)}")
            self._keep(answer)
            while self._missing:
                name = self._missing.popleft()
                if name not in self._files:
                    self._keep(await self._ask(ServerReflectionRequest(file_by_filename=name)))
            if not self._files:
                raise ReflectionError(f"the server sent no descriptors for {service}")
            return join_files(self._files[name].data for name in _dependencies_first(self._files))
        finally:
            if self._call is not None:
                self._call.cancel()

    async def _ask(self, question: ServerReflectionRequest) -> ServerReflectionResponse:
        """Ask one question and return the answer. Raises the server's AioRpcError, or ReflectionError."""
        again = self._call is not None
        if self._call is None:
            self._call = self._stream()
        try:
            with suppress(asyncio.InvalidStateError):  # the call has ended already; reading shows how
                await self._call.write(question)
            answer = await self._call.read()
        except grpc.aio.AioRpcError:  # also when the server ended the call with OK while we were writing
            if not again:
                raise
            answer = grpc.aio.EOF
        if isinstance(answer, ServerReflectionResponse):
            return answer
        if not again:
            raise ReflectionError("the server ended the conversation too early")
        self._call = None  # the server ended it after an answer: ask on a new stream
        return await self._ask(question)

    def _keep(self, answer: ServerReflectionResponse) -> None:
        """Keep the files of an answer. Raises ReflectionError."""
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
            new = [name for name in imports if name not in self._asked and well_known_file(name) is None]
            self._asked.update(new)
            self._missing.extend(new)


def _dependencies_first(files: dict[str, _File]) -> list[str]:
    """Return the names of the files, imports before importers; files that import each other come in any order."""
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
