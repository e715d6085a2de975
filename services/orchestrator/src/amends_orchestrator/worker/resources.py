"""Participants and RetryPolicies of stored texts, without the nodes of the texts, to save memory.

Every node of a text knows its place, for findings. Resources in force have been checked, and their nodes would take
most of the memory. Called by the registry and by the worker process.
"""

from __future__ import annotations

from dataclasses import replace

from amends_saga.definition import (
    Document,
    Node,
    NodeKind,
    Participant,
    ResourceMetadata,
    RetryPolicyResource,
    SourceText,
    read,
)

_NOWHERE = Node(NodeKind.SCALAR, SourceText("", ""), 0, 0)


def participant_of(source: str, manifest: str, namespace: str) -> Participant | None:
    """Return the Participant in a stored text; None when this version cannot read it."""
    known = next(iter(read([Document(source, manifest)], namespace=namespace).participants), None)
    return known and replace(
        known,
        metadata=_bare(known.metadata),
        service_node=_NOWHERE,
        methods_node=None,
        methods={name: replace(entry, node=_NOWHERE) for name, entry in known.methods.items()},
        calls=tuple((name, _NOWHERE) for name, _ in known.calls),
        descriptors=replace(known.descriptors, inline=None),
    )


def policy_of(source: str, manifest: str, namespace: str) -> RetryPolicyResource | None:
    """Return the RetryPolicy in a stored text; None when this version cannot read it."""
    known = next(iter(read([Document(source, manifest)], namespace=namespace).policies), None)
    return known and replace(
        known,
        metadata=_bare(known.metadata),
        participants=tuple((name, _NOWHERE) for name, _ in known.participants),
        methods=tuple((name, _NOWHERE) for name, _ in known.methods),
    )


def _bare(metadata: ResourceMetadata) -> ResourceMetadata:
    return replace(metadata, node=_NOWHERE)
