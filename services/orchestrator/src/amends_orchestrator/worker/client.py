"""The jobs of the worker process, typed: texts and contracts go there, findings and compiled sagas come back.

Called by `definitions`. The other half is `jobs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from amends_chassis.errors import ResourceExhausted
from amends_saga import codes
from amends_saga.analysis import Pin
from amends_saga.definition import Document
from amends_saga.findings import Finding, Place, Severity, has_errors

from amends_orchestrator.calls.targets import TargetRules
from amends_orchestrator.worker.pins import read_pins, write_pins
from amends_orchestrator.worker.process import BusyError, WorkerProcess, WorkError

ManifestText = tuple[str, str, str]
"""Source, text and namespace of a resource in force."""


@dataclass(frozen=True, slots=True)
class ReadParticipant:
    """A Participant in a text, with the fields that decide where its contract comes from."""

    namespace: str
    name: str
    service: str
    target: str
    reflection: bool
    inline: bytes | None

    @property
    def full_name(self) -> str:
        """Return namespace and name, joined by a slash."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class ReadTexts:
    """The resources in texts. `calls` are namespaces of sagas, each with a service that one of them calls."""

    participants: tuple[ReadParticipant, ...]
    calls: frozenset[tuple[str, str]]
    named: Mapping[tuple[str, str], Pin]
    """The Participant that a saga of the namespace names for a service."""
    refused: list[Finding]
    """Findings about texts that are too large to be read further; empty for all others."""


@dataclass(frozen=True, slots=True)
class MethodFacts:
    """A method of a Participant, with what it promises."""

    name: str
    kind: str
    compensated_by: str
    unary: bool


@dataclass(frozen=True, slots=True)
class CompiledBundle:
    """A compiled saga: its name, its digest in hexadecimal, and its bytes."""

    namespace: str
    name: str
    digest: str
    bundle: bytes
    routes: Mapping[str, str]
    """The services that it calls, each with the full name of the Participant that it was checked with."""
    named: frozenset[str]
    """The services whose Participant the saga itself names."""


@dataclass(frozen=True, slots=True)
class CheckedTexts:
    """The result of checking texts."""

    findings: list[Finding]
    sagas: list[CompiledBundle] = field(default_factory=list)
    """The compiled sagas without an error."""
    resources: list[tuple[str, str, str]] = field(default_factory=list)
    """Kind, namespace and name of everything that could be read."""
    methods: Mapping[str, tuple[MethodFacts, ...]] = field(default_factory=dict)
    """The methods of each Participant (by full name) whose contract is known."""

    @property
    def ok(self) -> bool:
        """Return whether no resource has an error."""
        return not has_errors(self.findings)


@dataclass(frozen=True, slots=True)
class InForce:
    """The resources that texts are checked against. `contracts` are FileDescriptorSets by full Participant names."""

    participants: Sequence[ManifestText] = ()
    policies: Sequence[ManifestText] = ()
    contracts: Mapping[str, bytes] = field(default_factory=dict)
    routes: Mapping[tuple[str, str], Pin] = field(default_factory=dict)
    """The pins, by namespace and service."""
    why: Mapping[str, str] = field(default_factory=dict)
    """Why contracts are not known, by the full names of Participants."""


class WorkerClient:
    """Sends texts to be checked, and bundles to be tried, to the worker process."""

    def __init__(self, process: WorkerProcess, rules: TargetRules) -> None:
        self._process = process
        self._rules = rules

    async def read(self, documents: Sequence[Document], namespace: str) -> ReadTexts:
        """Return the resources in the texts. Raises WorkError, and ResourceExhausted when too many wait."""
        answer, blobs = await self._do({"work": "read", **_texts(documents, namespace)})
        participants = tuple(
            ReadParticipant(**{**row, "inline": blobs[row["inline"]] if row["inline"] is not None else None})
            for row in answer["participants"]
        )
        calls = frozenset((call[0], call[1]) for call in answer["calls"])
        refused = [_finding(*row) for row in answer["refused"]]
        return ReadTexts(participants, calls, read_pins(answer["named"]), refused)

    async def check(self, documents: Sequence[Document], namespace: str, in_force: InForce) -> CheckedTexts:
        """Return all findings about the texts, and the sagas compiled. Raises WorkError and ResourceExhausted."""
        names = sorted(in_force.contracts)
        head = {
            "work": "check",
            **_texts(documents, namespace),
            "participants": in_force.participants,
            "policies": in_force.policies,
            "routes": write_pins(in_force.routes),
            "why": dict(in_force.why),
            "contracts": {name: at for at, name in enumerate(names)},
            "scope": self._rules.scope.value,
            "suffixes": self._rules.suffixes,
        }
        answer, bundles = await self._do(head, [in_force.contracts[name] for name in names])
        return CheckedTexts(
            [_finding(*row) for row in answer["findings"]],
            [_compiled(row, bundles) for row in answer["sagas"]],
            [(kind, namespace_, name) for kind, namespace_, name in answer["resources"]],
            {name: tuple(MethodFacts(**row) for row in rows) for name, rows in answer["methods"].items()},
        )

    async def refusal(self, bundle: bytes) -> str:
        """Return why a stored definition is too costly to load here; empty when it is not.

        Raises WorkError and ResourceExhausted.
        """
        answer, _ = await self._do({"work": "build"}, [bundle])
        return str(answer["message"])

    async def _do(self, head: dict[str, Any], blobs: Sequence[bytes] = ()) -> tuple[dict[str, Any], list[bytes]]:
        try:
            return await self._process.do(head, blobs)
        except BusyError:
            raise ResourceExhausted("CHECKS_BUSY", "Too many checks wait for their turn; try again.") from None


def failed(documents: Sequence[Document], error: WorkError) -> CheckedTexts:
    """Return the result for texts that could not be checked."""
    place = Place(documents[0].source if documents else "")
    hint = "Check less at once: fewer texts, shorter expressions, smaller contracts."
    return CheckedTexts([Finding(codes.TOO_LARGE.id, Severity.ERROR, str(error), hint, place)])


def _texts(documents: Sequence[Document], namespace: str) -> dict[str, Any]:
    return {"documents": [[document.source, document.text] for document in documents], "namespace": namespace}


def _compiled(row: dict[str, Any], bundles: list[bytes]) -> CompiledBundle:
    return CompiledBundle(**{**row, "bundle": bundles[row["bundle"]], "named": frozenset(row["named"])})


def _finding(code: str, severity: str, message: str, hint: str, place: list[Any]) -> Finding:
    return Finding(code, Severity(severity), message, hint, Place(*place))
