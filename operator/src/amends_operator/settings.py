"""The settings of the operator, read from the environment as `AMENDS_<FIELD>`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from amends_chassis.settings import Duration, PositiveDuration, ServiceSettings
from pydantic import Field, field_validator
from pydantic_settings import NoDecode


class Settings(ServiceSettings):
    """The operator's settings."""

    name: str = "operator"
    orchestrator_target: str = "dns:///amends-orchestrator:50051"
    """Where the orchestrator is, as a gRPC target."""
    monitor_target: str | None = None
    """Where the monitor is, as a gRPC target; unset: Choreographies are not handed on."""
    namespaces: Annotated[tuple[str, ...], NoDecode] = ("default",)
    """The namespaces that are served, separated by commas; `*` serves all, and needs a ClusterRole."""
    resync: PositiveDuration = timedelta(seconds=30)
    """How often what is in force and how many runs there are is looked at again."""
    relist: PositiveDuration = timedelta(minutes=5)
    """How often everything is listed again, in case a watch has lost something."""
    watch_silence: PositiveDuration = timedelta(seconds=60)
    """A watch that says nothing for this long is opened again; twice as long without an answer is unhealthy."""
    run_ttl: Duration | None = None
    """How long SagaRuns are kept after their end when they do not say it themselves; unset: for ever."""
    deletion_patience: PositiveDuration = timedelta(hours=24)
    """How long a deleted SagaRun waits for the end of its compensation before it is let go, with a warning."""
    timeline: int = Field(default=20, ge=0, le=50)
    """How many records of its journal a SagaRun shows."""
    quick: Duration = timedelta(seconds=1)
    """A run that ends within this time is written once, when it has ended."""
    slowest_look: PositiveDuration = timedelta(seconds=5)
    """The longest pause between two looks at a run that is under way."""
    policies_config_map: str = "amends-retry-policies"
    """The ConfigMap in each namespace that services mount to know its RetryPolicies."""
    touch_pods: bool = False
    """Whether pods that mount it are annotated when it changes, so that they see it at once; needs more rights."""
    peering: str | None = None
    """The name of a KopfPeering, when more than one instance may be up; unset: there is one instance."""
    peering_priority: int | None = None
    """The highest works, the others wait; two that are the same both wait. Unset: drawn at the start."""

    @field_validator("namespaces", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @property
    def everywhere(self) -> bool:
        """Return whether all namespaces are served."""
        return "*" in self.namespaces

    def serves(self, namespace: str) -> bool:
        """Return whether a namespace is served."""
        return self.everywhere or namespace in self.namespaces
