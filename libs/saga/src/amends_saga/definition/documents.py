"""Turns texts into resources: finds the kind of each document, reads its metadata, and reports faults.

Called by the checker, by the orchestrator for each manifest it is sent, and by the CLI. Never raises on any text.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from amends_saga import codes
from amends_saga.definition import choreography_kind, kinds, saga_kind
from amends_saga.definition.fields import Fields, is_name
from amends_saga.definition.nodes import Count, Node, NodeKind, compose
from amends_saga.definition.readers import odd_values
from amends_saga.definition.resources import (
    API_VERSION,
    Choreography,
    Participant,
    ResourceMetadata,
    RetryPolicyResource,
    Saga,
    SagaRun,
)
from amends_saga.findings import Finding, choices, suggestion

T = TypeVar("T")
KINDS = ("Saga", "Participant", "RetryPolicy", "SagaRun", "Choreography")
_TOP = ("apiVersion", "kind", "metadata", "spec", "status")
_METADATA = (
    "name",
    "namespace",
    "labels",
    "annotations",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "finalizers",
    "ownerReferences",
    "managedFields",
    "generateName",
    "selfLink",
)


@dataclass(frozen=True, slots=True)
class Document:
    """A text with resources, and its name in findings."""

    source: str
    text: str


@dataclass(slots=True)
class Resources:
    """Everything that could be read, with findings about the rest."""

    sagas: list[Saga] = field(default_factory=list)
    participants: list[Participant] = field(default_factory=list)
    policies: list[RetryPolicyResource] = field(default_factory=list)
    runs: list[SagaRun] = field(default_factory=list)
    choreographies: list[Choreography] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    passed_by: list[Node] = field(default_factory=list)
    """Documents of other kinds, such as a rendered release has."""


def read(documents: Sequence[Document], *, namespace: str = "default") -> Resources:
    """Return the resources of all documents; those that name no namespace are in `namespace`."""
    resources = Resources()
    seen: dict[tuple[str, str, str], ResourceMetadata] = {}
    count = Count()
    for document in documents:
        roots, findings = compose(document.source, document.text, count)
        resources.findings.extend(findings)
        for root in items_of(roots):
            if is_foreign(root):
                resources.passed_by.append(root)
            elif not root.is_null:
                resources.findings.extend(odd_values(root))
                _resource(root, namespace, resources, seen)
    if resources.passed_by and not seen and not resources.findings:
        node = resources.passed_by[0]
        message = "Nothing here is a resource of amends.dev."
        hint = f"Name a file with `apiVersion: {API_VERSION}`."
        resources.findings.append(node.finding(codes.WRONG_KIND, message, hint))
    return resources


def items_of(roots: Iterable[Node]) -> Iterator[Node]:
    """Yield the documents; a List is replaced by its items."""
    for root in roots:
        kind, version, items = root.get("kind"), root.get("apiVersion"), root.get("items")
        listed = kind is not None and kind.value == "List" and version is not None and version.value == "v1"
        if listed and items is not None and items.kind is NodeKind.SEQUENCE:
            yield from items.items
        else:
            yield root


def is_foreign(root: Node) -> bool:
    """Return whether a document belongs to another tool: its apiVersion is not similar to ours."""
    kind, version = root.get("kind"), root.get("apiVersion")
    if kind is None or version is None or kind.value in KINDS or not version.value:
        return False
    group = version.value.partition("/")[0]
    ours = API_VERSION.partition("/")[0]
    return group != ours and suggestion(group, [ours]) is None and suggestion(kind.value, KINDS) is None


def _resource(
    root: Node, namespace: str, resources: Resources, seen: dict[tuple[str, str, str], ResourceMetadata]
) -> None:
    found = resources.findings
    top = Fields(root, "The document", _TOP, found)
    if root.kind is not NodeKind.MAPPING:
        return
    kind = _kind(top)
    metadata = _metadata(top, kind or "", namespace)
    if kind is None:
        return
    spec = top.node_of("spec")
    if spec is None:
        top.add(codes.MISSING_FIELD, root, f"The {kind} has no `spec`.", "Add `spec`.")
        return
    if metadata is not None:
        key = (kind, metadata.namespace, metadata.name)
        if key in seen:
            first = seen[key].node.place()
            node = root.get("metadata") or root
            message = f"{kind} {metadata.full_name} is given twice, first in {first.source}, line {first.line}."
            top.add(codes.DUPLICATE_RESOURCE, node, message, "Leave one of them out, or rename it.")
            return
        seen[key] = metadata
    else:
        metadata = ResourceMetadata(kind, namespace, "unnamed", root)
    readers: dict[str, Callable[[], None]] = {
        "Saga": lambda: _keep(resources.sagas, saga_kind.saga(metadata, spec, found)),
        "Participant": lambda: _keep(resources.participants, kinds.participant(metadata, spec, found)),
        "RetryPolicy": lambda: _keep(resources.policies, kinds.retry_policy(metadata, spec, found)),
        "SagaRun": lambda: _keep(resources.runs, kinds.saga_run(metadata, spec, found)),
        "Choreography": lambda: _keep(resources.choreographies, choreography_kind.choreography(metadata, spec, found)),
    }
    readers[kind]()


def _keep(into: list[T], value: T | None) -> None:
    if value is not None:
        into.append(value)


def _kind(top: Fields) -> str | None:
    version, kind = top.text("apiVersion"), top.text("kind")
    node = top.node_of("apiVersion")
    if node is None:
        hint = f"Add `apiVersion: {API_VERSION}`."
        top.add(codes.NO_API_VERSION, top.node_of("kind") or top.node, "The document has no `apiVersion`.", hint)
    elif version != API_VERSION:
        top.add(
            codes.WRONG_KIND, node, f"`{node.value[:80]}` is not an apiVersion known here.", f"Write `{API_VERSION}`."
        )
        return None
    kind_node = top.node_of("kind")
    if kind_node is None:
        top.add(codes.WRONG_KIND, top.node, "The document has no `kind`.", f"Use one of {', '.join(KINDS)}.")
        return None
    if kind not in KINDS:
        top.add(
            codes.WRONG_KIND, kind_node, f"There is no kind `{kind_node.value[:80]}`.", choices(kind_node.value, KINDS)
        )
        return None
    return kind


def _metadata(top: Fields, kind: str, namespace: str) -> ResourceMetadata | None:
    part = top.part("metadata", _METADATA)
    if part is None:
        top.add(codes.MISSING_FIELD, top.node, "The document has no `metadata`.", "Add `metadata: {name: ...}`.")
        return None
    name, given = part.text("name"), part.text("namespace")
    if part.node_of("name") is None and part.node.kind is NodeKind.MAPPING:
        part.add(codes.MISSING_FIELD, part.node, "`metadata` has no `name`.", "Add `name`.")
    for value, field_name in ((name, "name"), (given, "namespace")):
        node = part.node_of(field_name)
        if value is not None and node is not None and not is_name(value):
            hint = "Use lower case letters, digits and dashes, at most 63, e.g. place-order."
            part.add(codes.BAD_NAME, node, f"`{value[:80]}` cannot name a resource.", hint)
            return None
    if name is None:
        return None
    return ResourceMetadata(kind, given or namespace, name, top.node)
