"""The orchestrator's own settings, beside those that every service has."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from amends_chassis.settings import Duration, PositiveDuration, ServiceSettings
from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from amends_orchestrator.calls.targets import TargetRules, TargetScope

MOST_HOT_BYTES = 64 * 1024 * 1024
SHARE = 8
"""A run takes about twice the bytes of its journal while it is written and sent; the rest is for everything else."""
MEMORY_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""The files with the container's memory limit: cgroups v2, then v1."""


def default_hot_bytes(limits: Sequence[Path] = MEMORY_LIMITS) -> int:
    """Return the share of the container's memory limit for runs, in bytes; at most MOST_HOT_BYTES."""
    for path in limits:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            return min(int(text) // SHARE, MOST_HOT_BYTES)
    return MOST_HOT_BYTES


class Settings(ServiceSettings):
    """The orchestrator's settings: `AMENDS_<FIELD>`."""

    name: str = "orchestrator"
    targets: TargetScope = TargetScope.CLUSTER
    """Where participants may run: `cluster`, or `loopback` for development."""
    target_suffixes: Annotated[tuple[str, ...], NoDecode] = ()
    """DNS suffixes that may be called beside the cluster's services, separated by commas; one without a dot is a name
    of its own, and allows nothing below it."""
    lease: PositiveDuration = timedelta(seconds=10)
    """How long a silent orchestrator keeps its runs."""
    poll: PositiveDuration = timedelta(milliseconds=500)
    """How often to look for runs that need an owner, if it is not known when the next is due."""
    hot_runs: int = Field(default=2000, ge=1)
    """How many runs are kept in memory; the others wait in the database."""
    hot_bytes: int = Field(default_factory=default_hot_bytes, ge=1)
    """How many bytes the journals of runs in memory may have; an eighth of the container's memory, at most 64 MiB."""
    passivate_after: PositiveDuration = timedelta(seconds=2)
    """A run that has nothing to do for longer than this leaves the memory.

    A run that a breaker holds back stays while half of the memory is free.
    """
    max_input_bytes: int = Field(default=256 * 1024, ge=1024)
    """Largest StartRun, and largest result of a resolution, as they are sent."""
    roles: Path | None = None
    """The file that gives callers roles in namespaces, by their certificates; None: whoever can connect may do all."""
    webhooks: Path | None = None
    """The file that says where events are sent over HTTPS; None: nowhere."""
    webhook_timeout: PositiveDuration = timedelta(seconds=10)
    """How long a webhook may take to answer."""
    webhook_retention: PositiveDuration = timedelta(days=7)
    """How long what webhooks were sent is kept, so that it can be sent again."""
    watchers: int = Field(default=2500, ge=1)
    """How many calls of WatchRun may be open at a time."""
    idempotency_retention: Duration = timedelta(days=30)
    """How long an ended run and its caller's key are kept."""
    max_concurrent_calls: int = Field(default=4096, ge=1)
    """A caller that waits for its run holds a call."""
    database_pool: int = Field(default=4, ge=2)
    """Connections for requests that read runs or decide about them; the journal has its own."""

    @field_validator("target_suffixes", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    def target_rules(self) -> TargetRules:
        """Return the rules for participants' addresses. Raises ValueError for a suffix that is no DNS name."""
        return TargetRules(self.targets, self.target_suffixes)
