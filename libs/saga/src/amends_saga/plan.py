"""The part of a definition that the engine needs.

The compiler makes a `Plan` of a Saga resource; the engine, the orchestrator and the explorer read it. Steps are named
by their index here, by their name in the journal and in texts for people.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from heapq import heappop, heappush
from typing import Protocol


class MethodKind(StrEnum):
    """The promise of a method about repeated calls, see the table in docs/explanation/guarantees.md."""

    GUARDED = "guarded"
    KEYED = "keyed"
    IDEMPOTENT = "idempotent"
    ONCE = "once"
    READ = "read"

    @property
    def plain(self) -> bool:
        """Return whether the method has effects that no barrier guards."""
        return self in (MethodKind.KEYED, MethodKind.IDEMPOTENT, MethodKind.ONCE)


@dataclass(frozen=True, slots=True)
class CallPlan:
    """One method that a step calls, with the facts that a run is pinned to."""

    service: str
    """Full protobuf name, e.g. `shop.payments.v1.PaymentService`."""
    method: str
    """Name in the service, e.g. `Charge`."""
    kind: MethodKind
    window: timedelta | None = None
    """For KEYED methods, how long a key is remembered; None: for ever."""
    retention: timedelta | None = None
    """For guarded methods, how long the barrier remembers; None: for ever."""
    outcomes: Mapping[str, str] = field(default_factory=dict)
    """Status code name to `ok`, `rejected` or `unknown`, where the Participant overrides the table."""
    uses_self: bool = False
    """For compensations: whether the request uses the response of the step's own action."""

    @property
    def path(self) -> str:
        """Return the method's gRPC path, e.g. `/shop.payments.v1.PaymentService/Charge`."""
        return f"/{self.service}/{self.method}"


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step of a saga."""

    name: str
    action: CallPlan
    compensation: CallPlan | None = None
    after: tuple[int, ...] = ()
    """The steps that must have finished before this one begins: direct predecessors only."""
    pivot: bool = False
    post: bool = False
    """True for steps after the pivot: they only go forward."""
    has_when: bool = False
    uses: tuple[int, ...] = ()
    """The steps whose response the request, `when` or the compensation uses; never the step itself."""
    amendment: bool = False
    """True for a step that never begins by itself: a person chooses it for a run that is parked behind the pivot. Such
    steps stand behind all others, and wait for every step that is `post` and none itself."""


@dataclass(frozen=True)
class Plan:
    """A compiled saga: its graph and the facts of its methods."""

    namespace: str
    saga: str
    digest: str
    steps: tuple[StepPlan, ...]
    deadline: timedelta | None = None
    """For the part that can still be undone, from the start of a run."""
    stalled_after: timedelta | None = None
    """How long a step may wait before the run counts as stalled; None: the deadline."""

    @cached_property
    def pivot(self) -> int | None:
        """Return the index of the pivot, None when the saga has none."""
        return next((i for i, step in enumerate(self.steps) if step.pivot), None)

    @cached_property
    def amendments(self) -> tuple[int, ...]:
        """Indices of the steps that only a person begins."""
        return tuple(i for i, step in enumerate(self.steps) if step.amendment)

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Return step names to indices."""
        return {step.name: i for i, step in enumerate(self.steps)}

    @cached_property
    def ancestors(self) -> tuple[frozenset[int], ...]:
        """Return, for each step, all steps that finish before it begins."""
        found: list[frozenset[int]] = [frozenset()] * len(self.steps)
        for i in self.order:
            direct = self.steps[i].after
            found[i] = frozenset(direct).union(*(found[p] for p in direct))
        return tuple(found)

    @cached_property
    def plain_before(self) -> tuple[tuple[int, ...], ...]:
        """Return, for each step, the plain steps among its ancestors."""
        plain = [index for index, step in enumerate(self.steps) if step.action.kind.plain]
        return tuple(tuple(index for index in plain if index in before) for before in self.ancestors)

    @cached_property
    def descendants(self) -> tuple[frozenset[int], ...]:
        """Return, for each step, all steps that begin after it has finished."""
        found: list[set[int]] = [set() for _ in self.steps]
        for index, before in enumerate(self.ancestors):
            for ancestor in before:
                found[ancestor].add(index)
        return tuple(map(frozenset, found))

    @cached_property
    def awaited(self) -> frozenset[int]:
        """Return the steps whose end must be on disk before another call: plain, or with a response that is used."""
        used = {use for step in self.steps for use in step.uses}
        return frozenset(used | {index for index, step in enumerate(self.steps) if step.action.kind.plain})

    @cached_property
    def in_order(self) -> bool:
        """Return whether the steps stand in an order that the graph allows."""
        return self.order == tuple(range(len(self.steps)))

    @cached_property
    def chain(self) -> bool:
        """Whether each step begins when the one above it has finished, and no sooner; amendments are left out."""
        ordinary = self.steps[: len(self.steps) - len(self.amendments)]
        return all(step.after == ((index - 1,) if index else ()) for index, step in enumerate(ordinary))

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Return the steps in an order that the graph allows. Raises ValueError when the graph has a cycle."""
        followers: list[list[int]] = [[] for _ in self.steps]
        missing = [len(set(step.after)) for step in self.steps]
        for index, step in enumerate(self.steps):
            for before in set(step.after):
                followers[before].append(index)
        ready = [index for index, count in enumerate(missing) if count == 0]
        done: list[int] = []
        while ready:
            index = heappop(ready)
            done.append(index)
            for follower in followers[index]:
                missing[follower] -= 1
                if missing[follower] == 0:
                    heappush(ready, follower)
        if len(done) < len(self.steps):
            raise ValueError("the steps wait for each other in a circle")
        return tuple(done)


@dataclass(frozen=True, slots=True)
class Scope:
    """The values that an expression can read."""

    input: bytes
    """The input message, serialised."""
    run_id: str
    saga: str
    started_at: datetime
    idempotency_key: str
    """Of the step whose expression it is."""
    responses: Mapping[int, bytes]
    """Step index to serialised response. A step that `when` left out is missing: it reads as an empty message."""


class ExpressionError(Exception):
    """An expression failed when it ran. The text is for people and contains no values of the run."""


class Expressions(Protocol):
    """Evaluates a saga's expressions; every method is deterministic and raises only ExpressionError."""

    def when(self, index: int, scope: Scope) -> bool:
        """Return whether the step runs at all."""
        ...

    def request(self, index: int, scope: Scope) -> bytes:
        """Return the action's request, serialised deterministically."""
        ...

    def compensation(self, index: int, scope: Scope) -> bytes:
        """Return the compensation's request, serialised deterministically."""
        ...
