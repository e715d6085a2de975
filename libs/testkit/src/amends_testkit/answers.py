"""The scripted behaviour of a fake participant. Called by tests that script a `FakeParticipant`."""

import asyncio
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Self

import grpc
from google.protobuf.message import Message


@dataclass(frozen=True, slots=True)
class ScriptedAnswer:
    """One scripted answer. Make it with the class methods; they read as sentences in a test."""

    fields: dict[str, Any] = field(default_factory=dict)
    """The response's fields, when it is given by fields."""
    response: Message | None = None
    """The response, when it is given whole."""
    stream: tuple[Message, ...] = ()
    """The responses of a method that streams; `code` comes after the last."""
    effect: bool = True
    """True when the call has its effect (and, guarded, leaves its row in the barrier)."""
    code: grpc.StatusCode = grpc.StatusCode.OK
    reason: str = ""
    """For `ErrorInfo`; empty: no details."""
    text: str = ""
    pause: timedelta | None = None
    """For `RetryInfo`, with an error; None: no such detail."""
    delay: timedelta = timedelta()
    """Before the effect."""
    until: asyncio.Event | None = None
    """Awaited before the effect."""
    lag: timedelta = timedelta()
    """After the effect, before the answer."""

    @classmethod
    def ok(cls, response: Message | None = None, **fields: Any) -> Self:
        """Return an answer that has its effect and a message, given whole or as fields."""
        return cls(fields=fields, response=response)

    @classmethod
    def streamed(cls, *responses: Message) -> Self:
        """Return an answer to a streaming method: these messages, in order."""
        return cls(stream=responses)

    @classmethod
    def refused(cls, code: grpc.StatusCode, reason: str = "", text: str = "refused by the script") -> Self:
        """Return an answer without an effect: an error."""
        return cls(effect=False, code=code, reason=reason, text=text)

    @classmethod
    def lost(cls, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, **fields: Any) -> Self:
        """Return an answer that has its effect but is lost: the caller sees an error."""
        return cls(fields=fields, code=code, text="the answer was lost by the script")

    def asking_for(self, pause: timedelta) -> Self:
        """Return the same error, with a pause that its caller is asked to make before it calls again."""
        return replace(self, pause=pause)

    def after(self, delay: timedelta) -> Self:
        """Return the same answer, given after a delay."""
        return replace(self, delay=delay)

    def once(self, event: asyncio.Event) -> Self:
        """Return the same answer, given once the event is set."""
        return replace(self, until=event)

    def answered_after(self, lag: timedelta) -> Self:
        """Return the same effect at once, with its answer later: beyond the caller's deadline, for example."""
        return replace(self, lag=lag)
