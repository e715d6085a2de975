"""The values of the call path that other packages name: routes, answers, and the error when there is no route.

Made by `router`, read by the runner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from amends_resilience import RetryPolicy


class ConfinementError(Exception):
    """This orchestrator may not call this target or service. The text is a sentence for people."""


class RouteError(Exception):
    """No route to a method: no Participant, no grant, or not on the allow-list. The text is a sentence for people."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How one attempt ended on the wire. `code` is the number of the gRPC status, 0 for OK."""

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
    """The target, method and policy with which one method is called now."""

    service: str
    method: str
    participant: str
    policy: RetryPolicy
    invoke: Invoke
    max_request_bytes: int
