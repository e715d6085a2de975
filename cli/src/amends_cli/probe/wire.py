"""Calls of the probe, as raw bytes with the metadata of a saga. Called by `cases`."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
import grpc.aio
from amends_chassis.dial import dial
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from amends_cli.certificates import own_certificates

STATUS_DETAILS = "grpc-status-details-bin"
TRY_AGAIN = frozenset({grpc.StatusCode.UNAVAILABLE})
OF_THE_WIRE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})
"""Without the trailer these need not come from the service."""
ATTEMPTS = 5
PAUSE = timedelta(milliseconds=100)


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """The service's answer to one call."""

    code: grpc.StatusCode
    body: bytes = b""
    reason: str = ""
    """Of the ErrorInfo, if there was one."""
    message: str = ""
    guarded: bool = False
    """True when the answer carried `amends-barrier: 1`."""
    void: str = ""
    """The trailer `amends-void`."""

    @property
    def ok(self) -> bool:
        """Return whether the status is OK."""
        return self.code is grpc.StatusCode.OK

    def __str__(self) -> str:
        reason = f" {self.reason}" if self.reason else ""
        return f"{self.code.name}{reason}"


class ProbeChannel:
    """One channel to the service under test."""

    def __init__(self, target: str, timeout: timedelta) -> None:
        self._channel = dial(target, certificates=own_certificates())
        self._timeout = timeout.total_seconds()
        self.answers = 0
        """How many calls with a key the service answered."""
        self.unmarked: list[str] = []
        """Those of its answers that lacked the trailer."""

    @property
    def channel(self) -> grpc.aio.Channel:
        """Return the channel, for reflection."""
        return self._channel

    async def close(self) -> None:
        """Close the channel to the service."""
        await self._channel.close()

    async def read(self, path: str, request: bytes) -> tuple[str, bytes]:
        """Observe: a call without a key. Returns the status and the answer."""
        answer = await self._call(path, request, ())
        return str(answer), answer.body

    async def ask(self, path: str, request: bytes, key: str, operation: str, **more: str) -> ProbeAnswer:
        """Make a saga's call; what is UNAVAILABLE is tried again with the same key, as a saga does."""
        metadata = [("amends-idempotency-key", key), ("amends-operation", operation), ("amends-run-id", "probe")]
        metadata += [(name.replace("_", "-"), value) for name, value in more.items()]
        for _ in range(ATTEMPTS):
            answer = await self._call(path, request, metadata)
            if answer.code not in TRY_AGAIN:
                break
            await asyncio.sleep(PAUSE.total_seconds())
        if answer.guarded or answer.code not in OF_THE_WIRE:
            self.answers += 1
            if not answer.guarded:
                self.unmarked.append(f"{operation} answered {answer}")
        return answer

    async def _call(self, path: str, request: bytes, metadata: Sequence[tuple[str, str]]) -> ProbeAnswer:
        method: Any = self._channel.unary_unary(path)
        call = method(request, metadata=metadata, timeout=self._timeout)
        try:
            body = await call
            return _answer(grpc.StatusCode.OK, body, "", await call.trailing_metadata())
        except grpc.aio.AioRpcError as error:
            return _answer(error.code(), b"", error.details() or "", error.trailing_metadata())


def _answer(code: grpc.StatusCode, body: bytes, message: str, trailers: Any) -> ProbeAnswer:
    found = dict(trailers or ())
    reason = _reason(found[STATUS_DETAILS]) if STATUS_DETAILS in found else ""
    guarded = str(found.get("amends-barrier", "")) == "1"
    return ProbeAnswer(code, body, reason, message, guarded, str(found.get("amends-void", "")))


def _reason(details: Any) -> str:
    """Return the reason of the ErrorInfo in a google.rpc.Status; empty when it is none: anybody may have written it."""
    info = error_details_pb2.ErrorInfo()
    try:
        for detail in status_pb2.Status.FromString(details).details:
            if detail.Unpack(info):
                return str(info.reason)
    except (DecodeError, TypeError):
        return ""
    return ""
