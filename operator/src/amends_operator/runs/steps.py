"""The actions that the operator can take for a SagaRun, one small value for each.

`next_step` asks for them and `RunActions` carries them out. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from amends_operator.kube.conditions import Condition
from amends_operator.runs.decisions import Decision


@dataclass(frozen=True, slots=True)
class Look:
    """Ask the orchestrator for the run: by its id, or by its idempotency key while the id is not known."""

    run_id: str
    key: str


@dataclass(frozen=True, slots=True)
class StartRun:
    """Start the run, or find the one that has this key already."""

    saga: str
    key: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CarryOut:
    """Hand a person's decision to the orchestrator, then look at the run again."""

    decision: Decision
    run_id: str
    cancels: bool
    """The run goes forward, so it is cancelled and nothing is resolved."""


@dataclass(frozen=True, slots=True)
class Undo:
    """Ask for the compensation of a run whose SagaRun was deleted, then look at the run again."""

    run_id: str
    parked_seq: int | None
    """What is resolved when the run is parked; None cancels a run that goes forward."""


OrchestratorCall = StartRun | CarryOut | Undo
"""What the orchestrator answers with yes or no."""


@dataclass(frozen=True, slots=True)
class PutFinalizer:
    """Put our finalizer on the object, if nothing has changed since it was read."""


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Take our finalizer off the object."""


@dataclass(frozen=True, slots=True)
class RemoveAnnotations:
    """Take the annotations of a decision off, unless the object has changed: a newer decision has the same names."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RecordDecision:
    """Write what became of a decision into status.lastResolution, and nothing else."""

    resolution: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Report:
    """Make the status these fields and conditions; transitions of the conditions in `tell` become events."""

    fields: Mapping[str, Any]
    conditions: Sequence[Condition]
    tell: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Write that this generation, or the request for another look, was seen and changes nothing."""


@dataclass(frozen=True, slots=True)
class WriteEvent:
    """Write an event; one that is told `once` is written once for an object, however often it is found."""

    reason: str
    message: str
    warning: bool = False
    once: bool = False


@dataclass(frozen=True, slots=True)
class Log:
    """Write a line to the operator's own log."""

    event: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    warning: bool = False


@dataclass(frozen=True, slots=True)
class RefreshSaga:
    """Have the Saga looked at soon, because its status counts its runs."""

    name: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the object from the cluster."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Be done until the object changes, or until `after` has passed."""

    after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Follow:
    """Be done for a while that grows as long as looks find nothing new."""


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Be done for now: what is needed is not there yet, and the work queue tries again with back-off."""

    why: str


Do = (
    Look
    | OrchestratorCall
    | PutFinalizer
    | RemoveFinalizer
    | RemoveAnnotations
    | RecordDecision
    | Report
    | Acknowledge
    | WriteEvent
    | Log
    | RefreshSaga
    | Delete
    | Rest
    | Follow
    | TryAgain
)
