"""The values of the call path that others name: routes, answers, and why there is no route.

Made by `router`, read by the runner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from amends_resilience import RetryPolicy


class ConfinementError(Exception):
    """A target or service that this orchestrator does not call. The text is a sentence for people."""


class RouteError(Exception):
    """There is no way to call a method now: no Participant, no grant, not on the allow-list. For people."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How one attempt ended, as the wire said it. `code` is the gRPC status' number, 0 for OK."""

    code: int
    response: bytes = b""
    message: str = ""
    reason: str = ""
    """Of ErrorInfo; empty without one."""
    domain: str = ""
    trailers: Mapping[str, str] = field(default_factory=dict)
    """Those that begin with `amends-`."""
    sent: bool = True
    """False when it is certain that nothing left this process."""
    too_large: bool = False
    """True when there was an answer, and it could not be read for its size: the call most likely had its effect."""
    pause: timedelta | None = None
    """How long the participant asks to be left alone; NEVER of the chassis: it asks not to be called again."""


Invoke = Callable[..., Any]
"""A grpc.aio multi-callable over bytes."""


@dataclass(frozen=True, slots=True)
class Route:
    """How to call one method now."""

    service: str
    method: str
    participant: str
    policy: RetryPolicy
    invoke: Invoke
    max_request_bytes: int
