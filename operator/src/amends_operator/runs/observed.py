"""A SagaRun and its run as they are now, and the questions that decide what is to be done. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from amends_operator.kube.objects import GROUP, Body, asked_of, asks_again, generation_of
from amends_operator.orchestrator import SeenRun
from amends_operator.runs.steps import OrchestratorCall
from amends_operator.runs.values import key_of_run, positive_duration
from amends_operator.runs.view import ENDED

FINALIZER = "amends.dev/compensate"


@dataclass(frozen=True, slots=True)
class RunLimits:
    """The patience of the operator with runs, as durations."""

    quick: timedelta
    """A run that ends within this time is written once."""
    slowest_look: timedelta
    ttl: timedelta | None
    """How long a SagaRun that does not say it is kept after its end; None: for ever."""
    resync: timedelta
    deletion_patience: timedelta
    """How long a deleted SagaRun waits for the end of its compensation."""


@dataclass(frozen=True, slots=True)
class Missing:
    """The orchestrator knows no such run; `why` is its answer."""

    why: str


@dataclass(frozen=True, slots=True)
class OrchestratorRefusal:
    """The orchestrator's no, with the reason of its ErrorInfo; empty for what was not even sent."""

    reason: str
    message: str
    not_found: bool = False

    @property
    def text(self) -> str:
        """Return `REASON: message`."""
        return f"{self.reason}: {self.message}" if self.reason else self.message


@dataclass(frozen=True, slots=True)
class OrchestratorAnswer:
    """The orchestrator's answer to the last call of this look; without a refusal it agreed."""

    to: OrchestratorCall
    refusal: OrchestratorRefusal | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """One look: the object, the run when it was asked for, and what was answered so far."""

    body: Body
    now: datetime
    limits: RunLimits
    run: SeenRun | Missing | None = None
    """None: the orchestrator was not asked yet."""
    answer: OrchestratorAnswer | None = None
    gone: bool = False
    """The object was deleted; `body` is its last known form."""
    shared: bool = False
    """Another SagaRun that is not deleted has the same key, and so shows the same run."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Return the object's metadata."""
        found: Mapping[str, Any] = self.body["metadata"]
        return found

    @property
    def spec(self) -> Mapping[str, Any]:
        """Return the spec; an API server without our schema may hold an object without one."""
        return self.body.get("spec") or {}

    @property
    def status(self) -> Mapping[str, Any]:
        """Return the status, empty while none was written."""
        return self.body.get("status") or {}

    @property
    def run_id(self) -> str:
        """Return the id of the run that the status names, empty before the start was recorded."""
        return str(self.status.get("runId") or "")

    @property
    def run_key(self) -> str:
        """Return the idempotency key of the run."""
        return key_of_run(self.body)

    @property
    def names_its_key(self) -> bool:
        """Return whether spec.key gives the key, so that a run of it may be another's."""
        return bool(self.spec.get("key"))

    @property
    def deleted(self) -> bool:
        """Return whether the object is deleted, perhaps with finalizers left."""
        return "deletionTimestamp" in self.metadata

    @property
    def guarded(self) -> bool:
        """Return whether our finalizer is on."""
        return FINALIZER in (self.metadata.get("finalizers") or ())

    @property
    def was_released(self) -> bool:
        """Return whether our finalizer was taken off: it is put on before the status names the run."""
        return self.deleted and bool(self.run_id) and not self.guarded

    @property
    def abandons(self) -> bool:
        """Return whether deleting the object leaves the run alone, by the annotation or the spec."""
        annotations = self.metadata.get("annotations") or {}
        chosen = annotations.get(f"{GROUP}/on-delete", "") or self.spec.get("onDeletion", "")
        return isinstance(chosen, str) and chosen.lower() == "abandon"

    @property
    def has_no_run_of_its_own(self) -> bool:
        """Return whether another SagaRun undoes the run of this key, or may."""
        refused = self.status.get("phase") == "Refused" and not self.run_id
        return self.shared or (refused and self.names_its_key)

    @property
    def overdue(self) -> bool:
        """Return whether the deleted object has waited for its compensation for too long."""
        since = _moment(self.metadata["deletionTimestamp"])
        return self.now - since > self.limits.deletion_patience

    @property
    def suspended(self) -> bool:
        """Return whether spec.suspend is true."""
        return bool(self.spec.get("suspend"))

    @property
    def ended(self) -> bool:
        """Return whether the status shows the run's end."""
        return "endedAt" in self.status and self.status.get("phase") in ENDED

    @property
    def is_current(self) -> bool:
        """Return whether the status speaks of this generation."""
        return bool(self.status.get("observedGeneration") == generation_of(self.body))

    @property
    def asked(self) -> str:
        """Return the value of the annotation that asks for another look; empty without it."""
        return asked_of(self.body)

    @property
    def asks_again(self) -> bool:
        """Return whether a person asked for another look since the last one."""
        return asks_again(self.body)

    @property
    def left_to_live(self) -> timedelta | None:
        """Return how long the object of an ended run is still kept; None is for ever.

        A ttlAfterEnd that cannot be read keeps the object: nothing is deleted on a guess.
        """
        given = self.spec.get("ttlAfterEnd")
        ttl = self.limits.ttl if given is None else positive_duration(given)
        return None if ttl is None else _moment(self.status["endedAt"]) + ttl - self.now


def _moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
