"""The resources as values, with the nodes they were read from, so that every later finding has a place.

Made by `documents`; read by the analysis, the checker, the orchestrator and the CLI.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from amends_resilience import NamedPolicy, RetryPolicy, Selector

from amends_saga.definition.nodes import Node

API_VERSION = "amends.dev/v1alpha1"


@dataclass(frozen=True, slots=True)
class ResourceMetadata:
    """The identity of a resource: kind, namespace and name."""

    kind: str
    namespace: str
    name: str
    node: Node
    """The whole document."""

    @property
    def full_name(self) -> str:
        """Return namespace and name, e.g. `shop/payments`."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class CallSpec:
    """A call as written: `pkg.Service/Method` and the expression of its request."""

    node: Node
    """Where the name of the method stands."""
    service: str
    method: str
    request: Node
    """The scalar that holds the expression."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step as written."""

    node: Node
    name: str
    name_node: Node
    call: CallSpec | None
    """None when it could not be read; there is a finding then."""
    compensate: CallSpec | None
    compensate_node: Node | None
    """The `compensate` mapping, also when it could not be read."""
    after: tuple[tuple[str, Node], ...] | None
    """None when left out: the step above."""
    when: Node | None
    pivot: bool
    pivot_node: Node | None
    accept: frozenset[str] = frozenset()
    """Codes of warnings that are accepted for this step."""
    amendment: bool = False
    """True for what stands in `afterPivot`: a person may have it run instead of the steps behind the pivot."""


@dataclass(frozen=True, slots=True)
class InlineField:
    """One field of an inline input: `lines: repeated shop.orders.v1.Line`."""

    name: str
    type: str
    """Scalar type or full name of a message or enum; for maps the value's."""
    label: str
    """``, `repeated`, `optional` or `map`."""
    key: str
    """For maps, the key's scalar type."""
    node: Node


@dataclass(frozen=True, slots=True)
class Descriptors:
    """The source of a FileDescriptorSet: server reflection, a ConfigMap's key, or the text itself."""

    reflection: bool = False
    config_map: tuple[str, str] | None = None
    inline: bytes | None = None


@dataclass(frozen=True, slots=True)
class Saga:
    """A Saga as written."""

    metadata: ResourceMetadata
    input: str | tuple[InlineField, ...]
    input_node: Node
    deadline: timedelta | None
    deadline_node: Node | None
    stalled_after: timedelta | None
    descriptors: Descriptors | None
    steps: tuple[Step, ...]
    """Those of `steps`, and behind them those of `afterPivot`."""
    participants: Mapping[str, str] = field(default_factory=dict)
    """Services whose Participant the saga names: its namespace/name."""


@dataclass(frozen=True, slots=True)
class MethodEntry:
    """A Participant's statements about one method; None where it makes none."""

    name: str
    node: Node
    guarded: bool | None = None
    idempotency: str | None = None
    compensated_by: str | None = None
    window: timedelta | None = None
    outcomes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Participant:
    """The address of a service, the methods that may be called, and the allowed callers."""

    metadata: ResourceMetadata
    service: str
    target: str
    service_node: Node
    methods_node: Node | None
    all_methods: bool = False
    methods: Mapping[str, MethodEntry] = field(default_factory=dict)
    callers: tuple[str, ...] = ()
    barrier_retention: timedelta | None = None
    descriptors: Descriptors = Descriptors(reflection=True)
    calls: tuple[tuple[str, Node], ...] = ()
    """The services that it calls itself, with retries of its own."""

    def allows(self, method: str) -> bool:
        """Return whether the method is on the allow-list."""
        return self.all_methods or method in self.methods

    def grants(self, namespace: str) -> bool:
        """Return whether sagas of the namespace may call it."""
        return namespace in self.callers


@dataclass(frozen=True, slots=True)
class RetryPolicyResource:
    """A RetryPolicy with what it selects."""

    metadata: ResourceMetadata
    selector: Selector
    policy: RetryPolicy
    participants: tuple[tuple[str, Node], ...] = ()
    methods: tuple[tuple[str, Node], ...] = ()

    def named(self) -> NamedPolicy:
        """Return the policy in the form that `amends_resilience.match` takes."""
        return NamedPolicy(self.metadata.full_name, self.selector, self.policy)


@dataclass(frozen=True, slots=True)
class SagaRun:
    """A run that is requested as a resource; `input` is canonical protobuf JSON."""

    metadata: ResourceMetadata
    saga: str
    input: Mapping[str, Any]
    input_node: Node | None


class FlowEnding(StrEnum):
    """How an event ends a flow of a choreography."""

    WELL = "Well"
    """What was to be done is done."""
    UNDONE = "Undone"
    """Nothing is left of what was done."""


@dataclass(frozen=True, slots=True)
class EventName:
    """The full name of an event's message, and where it stands."""

    name: str
    node: Node


@dataclass(frozen=True, slots=True)
class EventParticipant:
    """A service that takes part in a choreography."""

    name: str
    node: Node
    publishes: tuple[EventName, ...] = ()
    consumes: tuple[EventName, ...] = ()


@dataclass(frozen=True, slots=True)
class EventAnswer:
    """What follows from an event: one of several events, by one participant, within a time."""

    node: Node
    by: str
    by_node: Node
    events: tuple[EventName, ...]
    within: timedelta


@dataclass(frozen=True, slots=True)
class EventUndo:
    """What undoes the effect of an event."""

    event: EventName
    upon: tuple[EventName, ...] | None
    """None when left out: upon each event that ends the flow undone."""
    within: timedelta


@dataclass(frozen=True, slots=True)
class DescribedEvent:
    """An event of a choreography as written."""

    event: EventName
    answers: tuple[EventAnswer, ...] = ()
    answers_node: Node | None = None
    effect: bool = True
    """False when it changed nothing that would have to be undone."""
    undone_by: EventUndo | None = None
    at_most: int | None = None
    """How often it may happen in one flow; None when left out."""
    ends: FlowEnding | None = None


@dataclass(frozen=True, slots=True)
class Choreography:
    """A Choreography as written."""

    metadata: ResourceMetadata
    key: str
    key_node: Node
    start: EventName
    where: tuple[tuple[Node, Node], ...]
    """Fields of the start's event, and the values that they must have."""
    participants: tuple[EventParticipant, ...]
    events: tuple[DescribedEvent, ...]
    descriptors: Descriptors | None = None
