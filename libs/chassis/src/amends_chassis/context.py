"""The call that is being worked on, and its trace: logs show them and outgoing calls carry them on.

Set once per call by the server interceptor, read by the log processor and by the client channels. Every call has
a trace id, sampled or not, so that the log lines of one order can be found over all services.
"""

import random
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from dataclasses import dataclass
from typing import Self

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
Metadatum = tuple[str, str | bytes]

_HEADER = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_chance = random.SystemRandom()
_cheap = random.Random(_chance.getrandbits(128))  # noqa: S311 - identifies a trace, guards nothing


@dataclass(frozen=True, slots=True)
class Trace:
    """The place in a trace, as W3C Trace Context (https://www.w3.org/TR/trace-context/) has it."""

    trace_id: str
    span_id: str
    sampled: bool
    state: str = ""

    @classmethod
    def parse(cls, header: str, state: str = "") -> Self | None:
        """Read a `traceparent` header; None when it is malformed, which the specification treats as absent."""
        found = _HEADER.fullmatch(header)
        if found is None:
            return None
        return cls(found[1], found[2], bool(int(found[3], 16) & 1), state)

    @classmethod
    def begin(cls, ratio: float) -> Self:
        """Start a trace, sampled with the probability `ratio`."""
        sampled = _cheap.random() < ratio
        return cls(f"{_cheap.getrandbits(128) or 1:032x}", f"{_cheap.getrandbits(64) or 1:016x}", sampled)

    @property
    def traceparent(self) -> str:
        """Return the header for the next service."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"

    def metadata(self) -> tuple[Metadatum, ...]:
        """Return the gRPC metadata that carry this trace on."""
        if self.state:
            return ((TRACEPARENT, self.traceparent), (TRACESTATE, self.state))
        return ((TRACEPARENT, self.traceparent),)


@dataclass(frozen=True, slots=True)
class IncomingCall:
    """The call in hand: its full method ("/package.Service/Method") and the metadata it came with."""

    method: str
    metadata: tuple[Metadatum, ...]

    def value(self, key: str) -> str | None:
        """Return the first value of a metadatum, None if it did not come."""
        for name, value in self.metadata:
            if name == key:
                return value if isinstance(value, str) else value.decode("utf-8", "replace")
        return None


_call: ContextVar[IncomingCall | None] = ContextVar("amends_call", default=None)
_trace: ContextVar[Trace | None] = ContextVar("amends_trace", default=None)


def current_call() -> IncomingCall | None:
    """Return the call being served, None outside one."""
    return _call.get()


def current_trace() -> Trace | None:
    """Return the place in the trace, None when there is none."""
    return _trace.get()


def sampled() -> bool:
    """Return whether the work in hand belongs to a sampled trace."""
    trace = _trace.get()
    return trace is not None and trace.sampled


def traceparent() -> str | None:
    """Return the W3C header of the work in hand, to store with work that continues later; None without a trace."""
    trace = _trace.get()
    return None if trace is None else trace.traceparent


def trace_from(metadata: Iterable[Metadatum], ratio: float) -> Trace:
    """Continue the trace that `metadata` carry, else begin one (sampled with the probability `ratio`)."""
    header = state = ""
    for key, value in metadata:
        if key == TRACEPARENT and isinstance(value, str):
            header = value
        elif key == TRACESTATE and isinstance(value, str):
            state = value
    return (header and Trace.parse(header, state)) or Trace.begin(ratio)


def enter_call(call: IncomingCall, trace: Trace) -> None:
    """Make this the call and trace of the running task. gRPC serves each call in a task of its own: no way back."""
    _call.set(call)
    _trace.set(trace)


def enter_trace(trace: Trace) -> None:
    """Move to another place of the trace for the rest of the running task."""
    _trace.set(trace)


@contextmanager
def in_trace(trace: Trace | str | None) -> Iterator[None]:
    """Do the block in a trace, given as such or as a `traceparent` header; None or a malformed header: in none."""
    token = _trace.set(Trace.parse(trace) if isinstance(trace, str) else trace)
    try:
        yield
    finally:
        _trace.reset(token)


def detached() -> Context:
    """Return a fresh context with nothing but the current trace, for tasks that outlive the call that starts them.

    Without it (`asyncio.create_task(work(), context=detached())`) a task inherits the deadline of the call.
    """
    context = Context()
    context.run(_trace.set, _trace.get())
    return context
