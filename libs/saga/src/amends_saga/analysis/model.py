"""The resolved model of a saga: the input of every rule, and of the compiler.

A value that could not be resolved is None. There is a finding about it already, so a rule ignores it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from amends_resilience import RetryPolicy

from amends_saga.cel import Checked, Environment
from amends_saga.definition import Node, Participant, RetryPolicyResource, Saga, Step
from amends_saga.descriptors import Contracts, Facts
from amends_saga.findings import Finding
from amends_saga.plan import MethodKind


@dataclass(frozen=True, slots=True)
class ParticipantView:
    """A Participant with its contract: the bytes of a FileDescriptorSet, None when it is not known."""

    participant: Participant
    descriptors: bytes | None
    why: str = ""
    """Why the contract is not known."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method that a step calls, with its Participant, its messages and what it promises."""

    participant: Participant
    name: str
    input_type: str
    output_type: str
    facts: Facts
    policy: RetryPolicy | None
    """The retry policy in force, None when several policies contradict each other."""

    @property
    def service(self) -> str:
        """Return the full name of the service."""
        return self.participant.service

    @property
    def kind(self) -> MethodKind:
        """Return what the method promises about repeated calls."""
        return self.facts.kind

    @property
    def full_name(self) -> str:
        """Return service and method, as a definition writes them."""
        return f"{self.service}/{self.name}"

    @property
    def package(self) -> str:
        """Return the protobuf package of the service, in which its expressions look up message names."""
        return self.service.rpartition(".")[0]


class ExpressionRole(StrEnum):
    """The purpose of an expression in its step."""

    REQUEST = "request"
    WHEN = "when"
    COMPENSATION = "compensation"


@dataclass(frozen=True)
class Expression:
    """An expression of a step, with its type when it has one."""

    role: ExpressionRole
    step: int
    node: Node
    container: str
    checked: Checked | None
    uses: Mapping[str, int]
    """Variables that it reads, each with the offset in the text of its first use."""
    target: str
    """The message that it must make; empty for conditions."""


@dataclass(frozen=True)
class StepModel:
    """One step, resolved as far as possible."""

    index: int
    step: Step
    after: tuple[int, ...]
    action: Method | None
    compensation: Method | None
    expressions: tuple[Expression, ...]

    @property
    def name(self) -> str:
        """Return the name of the step."""
        return self.step.name

    @property
    def is_read(self) -> bool:
        """Return whether the action is known to have no side effects."""
        return self.action is not None and self.action.kind is MethodKind.READ

    def expression(self, role: ExpressionRole) -> Expression | None:
        """Return the expression of that role, None when there is none or it has no type."""
        return next((found for found in self.expressions if found.role is role), None)


@dataclass(frozen=True)
class Graph:
    """The order of the steps. A set of steps is an integer with one bit for each step."""

    after: tuple[tuple[int, ...], ...]

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Return the steps in an order that the graph allows, without steps in or after a cycle."""
        waiting = [len(direct) for direct in self.after]
        following: list[list[int]] = [[] for _ in self.after]
        for step, direct in enumerate(self.after):
            for before in direct:
                following[before].append(step)
        ready = [step for step, count in enumerate(waiting) if count == 0]
        for step in ready:
            for later in following[step]:
                waiting[later] -= 1
                if waiting[later] == 0:
                    ready.append(later)
        return tuple(ready)

    @property
    def is_acyclic(self) -> bool:
        """Return whether no step waits for itself."""
        return len(self.order) == len(self.after)

    @cached_property
    def _ancestors(self) -> Sequence[int]:
        found = [0] * len(self.after)
        for step in self.order:
            for before in self.after[step]:
                found[step] |= found[before] | 1 << before
        return found

    def precedes(self, one: int, other: int) -> bool:
        """Return whether step `one` has always finished when step `other` begins."""
        return bool(self._ancestors[other] >> one & 1)

    @cached_property
    def sinks(self) -> tuple[int, ...]:
        """Return the steps that no other step waits for."""
        waited_for = {before for direct in self.after for before in direct}
        return tuple(step for step in range(len(self.after)) if step not in waited_for)


@dataclass(eq=False)
class Model:
    """A saga, resolved as far as possible. Each is a key of its own, so that rules may keep what they found for it."""

    saga: Saga
    steps: tuple[StepModel, ...]
    graph: Graph
    pivot: int | None
    """Index of the pivot, marked or by shape; None when the saga has none."""
    input_type: str
    contracts: Contracts
    environment: Environment | None
    """None when there is no pool to check expressions against."""
    participants: Sequence[ParticipantView]
    policies: Sequence[RetryPolicyResource]
    unsure: frozenset[int] = frozenset()
    """Steps whose `after` names something unknown: rules say nothing about their place in the order."""
    findings: list[Finding] = field(default_factory=list)

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Return step names to indices; if two steps have the same name, the first counts."""
        return {step.name: step.index for step in reversed(self.steps) if step.name}

    def is_post(self, index: int) -> bool:
        """Return whether a step comes after the pivot."""
        return self.pivot is not None and self.graph.precedes(self.pivot, index)
