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
    """The reason in the ErrorInfo; empty without one."""
    domain: str = ""
    trailers: Mapping[str, str] = field(default_factory=dict)
    """The trailers that begin with `amends-`."""
    sent: bool = True
    """False when it is certain that nothing left this process."""
    too_large: bool = False
    """True when the answer was too large to be read: the call most likely took effect."""
    pause: timedelta | None = None
    """The pause that the participant asks for; the chassis' NEVER: it asks not to be called again."""


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
