"""One gRPC channel for each target, without anything that would repeat a call or send it elsewhere.

No proxy from the environment (it would see every request), no retries by gRPC (they are invisible; ours are in the
journal), no service config. Called by the router and by the reflection client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc.aio
from amends_chassis.dial import dial
from amends_chassis.pushback import asked_pause
from amends_chassis.text import escape
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from amends_orchestrator.calls.ports import Answer, ConfinementError, Invoke
from amends_orchestrator.calls.targets import TargetRules

if TYPE_CHECKING:
    from amends_chassis.certificates import Certificates

_AMENDS = "amends-"
_LONGEST_MESSAGE = 500
_RESOURCE_EXHAUSTED = 8
# The message of gRPC's core, here and in servers, for an answer over a limit. For a request it is a different one.
_ANSWER_TOO_LARGE = ("CLIENT: Received message larger than max", "SERVER: Sent message larger than max")
_DETAILS = "grpc-status-details-bin"


class Channels:
    """Opens channels to allowed targets and keeps them."""

    def __init__(self, rules: TargetRules, *, max_message_bytes: int, certificates: Certificates | None = None) -> None:
        self._rules = rules
        self._certificates = certificates
        self._channels: dict[str, grpc.aio.Channel] = {}
        self.max_message_bytes = max_message_bytes
        self._options: list[tuple[str, str | int]] = [
            ("grpc.enable_retries", 0),
            ("grpc.service_config_disable_resolution", 1),
            ("grpc.lb_policy_name", "round_robin"),
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2000),
            # Pods come and go with every deployment: resolve a name again at once, not after half a minute.
            ("grpc.dns_min_time_between_resolutions_ms", 500),
        ]

    def to(self, target: str) -> grpc.aio.Channel:
        """Return the channel to a target. Raises ConfinementError for a target that is not allowed."""
        dialled = self._rules.check(target)
        channel = self._channels.get(dialled)
        if channel is None:
            channel = self._channels[dialled] = dial(dialled, self._options, certificates=self._certificates)
        return channel

    def invoke(self, target: str, path: str) -> Invoke:
        """Return the multi-callable of a unary method over bytes. Raises ConfinementError."""
        return self.to(target).unary_unary(path)

    async def keep_only(self, targets: Iterable[str]) -> None:
        """Close channels to targets that no Participant names any more; calls under way get one second."""
        kept: set[str] = set()
        for target in targets:
            with suppress(ConfinementError):
                kept.add(self._rules.check(target))
        gone = [self._channels.pop(dialled) for dialled in list(self._channels) if dialled not in kept]
        await asyncio.gather(*(channel.close(1) for channel in gone))

    async def close(self) -> None:
        """Close all channels at once."""
        await self.keep_only(())


async def attempt(invoke: Invoke, request: bytes, metadata: tuple[tuple[str, str], ...], timeout: float) -> Answer:
    """Make one call and return how it ended. Raises only CancelledError.

    `timeout` is in seconds, as gRPC takes it.
    """
    # For a sequence of pairs, grpc would first ask `typing` what it is, which costs more than making this object.
    call = invoke(request, timeout=timeout, metadata=grpc.aio.Metadata(*metadata))
    try:
        response: bytes = await call
    except grpc.aio.AioRpcError as error:
        return _failed(error)
    return Answer(0, response, trailers=_ours(await call.trailing_metadata()))


def _failed(error: grpc.aio.AioRpcError) -> Answer:
    reason = domain = ""
    trailing = error.trailing_metadata()
    for key, value in trailing or ():
        if key == _DETAILS:
            reason, domain = _error_info(value)
    code: int = error.code().value[0]
    # Foreign texts are cleaned here, where they enter: the journal, events, pages and terminals show them unchanged.
    details = error.details() or ""
    message = escape(details[:_LONGEST_MESSAGE])[:_LONGEST_MESSAGE]
    if code == _RESOURCE_EXHAUSTED and any(text in details for text in _ANSWER_TOO_LARGE):
        return Answer(code, message=f"the answer is larger than AMENDS_MAX_MESSAGE_BYTES: {message}", too_large=True)
    pause = asked_pause(trailing)
    return Answer(code, b"", message, escape(reason[:100]), domain, _ours(trailing), pause=pause)


def _ours(trailing: Any) -> dict[str, str]:
    return {key: value for key, value in trailing or () if key.startswith(_AMENDS) and isinstance(value, str)}


def _error_info(details: Any) -> tuple[str, str]:
    """Return reason and domain of the first ErrorInfo in a google.rpc.Status; both are empty if it has none."""
    try:
        status = status_pb2.Status.FromString(details)
        for detail in status.details:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo.FromString(detail.value)
                return info.reason, info.domain
    except (DecodeError, TypeError):
        return "", ""
    return "", ""
