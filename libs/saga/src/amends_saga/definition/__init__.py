"""Reads the resources of amends.dev from YAML or JSON, with the place of every node kept."""

from amends_saga.definition.documents import Document, Resources, read
from amends_saga.definition.nodes import Node, NodeKind, SourceText, compose
from amends_saga.definition.resources import (
    API_VERSION,
    CallSpec,
    Choreography,
    DescribedEvent,
    Descriptors,
    EventName,
    EventParticipant,
    FlowEnding,
    InlineField,
    MethodEntry,
    Participant,
    ResourceMetadata,
    RetryPolicyResource,
    Saga,
    SagaRun,
    Step,
)

__all__ = [
    "API_VERSION",
    "CallSpec",
    "Choreography",
    "DescribedEvent",
    "Descriptors",
    "Document",
    "EventName",
    "EventParticipant",
    "FlowEnding",
    "InlineField",
    "MethodEntry",
    "Node",
    "NodeKind",
    "Participant",
    "ResourceMetadata",
    "Resources",
    "RetryPolicyResource",
    "Saga",
    "SagaRun",
    "SourceText",
    "Step",
    "compose",
    "read",
]
