"""The resources in stored texts, without the texts: what is kept in memory of a Participant and a RetryPolicy.

Every node of a text knows its place, for findings; what is in force has been checked, and its nodes would be most of
what it costs. Called by the registry and by the worker process.
"""

from __future__ import annotations

from dataclasses import replace

from amends_saga.definition import (
    Document,
    Metadata,
    Node,
    NodeKind,
    Participant,
    RetryPolicyResource,
    SourceText,
    read,
)

_NOWHERE = Node(NodeKind.SCALAR, SourceText("", ""), 0, 0)


def participant_of(source: str, manifest: str, namespace: str) -> Participant | None:
    """The Participant in a stored text; None when this version cannot read it."""
    found = read([Document(source, manifest)], namespace=namespace).participants
    if not found:
        return None
    known = found[0]
    return replace(
        known,
        metadata=_bare(known.metadata),
        service_node=_NOWHERE,
        methods_node=None,
        methods={name: replace(entry, node=_NOWHERE) for name, entry in known.methods.items()},
        calls=tuple((name, _NOWHERE) for name, _ in known.calls),
        descriptors=replace(known.descriptors, inline=None),
    )


def policy_of(source: str, manifest: str, namespace: str) -> RetryPolicyResource | None:
    """The RetryPolicy in a stored text; None when this version cannot read it."""
    found = read([Document(source, manifest)], namespace=namespace).policies
    if not found:
        return None
    known = found[0]
    return replace(
        known,
        metadata=_bare(known.metadata),
        participants=tuple((name, _NOWHERE) for name, _ in known.participants),
        methods=tuple((name, _NOWHERE) for name, _ in known.methods),
    )


def _bare(metadata: Metadata) -> Metadata:
    return replace(metadata, node=_NOWHERE)
