"""Checks resources, and puts them in force when nothing is wrong with them.

The checker is the CLI's; what is added here is what only this orchestrator knows: which targets it may call, and the
contracts as the participants have them now. Called by DefinitionService and by the refresher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from amends_saga import codes
from amends_saga.analysis import ParticipantView
from amends_saga.check import CheckResult, check
from amends_saga.compiled import CompiledSaga
from amends_saga.definition import Document, Metadata, Participant, read
from amends_saga.findings import Finding, Place, has_errors, ordered

from amends_orchestrator.calls.channels import Channels
from amends_orchestrator.calls.ports import ConfinementError
from amends_orchestrator.calls.targets import TargetRules
from amends_orchestrator.definitions import store
from amends_orchestrator.definitions.contracts import Contract, contract_of, views_of
from amends_orchestrator.definitions.registry import Registry
from amends_orchestrator.definitions.store import ParticipantRow, PolicyRow, SagaRow

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a resource. `name` is its namespace and name, None when it could not be read."""

    findings: list[Finding]
    name: tuple[str, str] | None = None

    @property
    def accepted(self) -> bool:
        """Whether it is in force."""
        return self.name is not None and not has_errors(self.findings)


class Definitions:
    """Checks and applies, against what is in force."""

    def __init__(self, pool: Any, registry: Registry, channels: Channels, rules: TargetRules) -> None:
        self._pool = pool
        self._registry = registry
        self._channels = channels
        self._rules = rules

    async def check(self, documents: Sequence[Document], namespace: str) -> CheckResult:
        """All findings about documents, as if they stood beside what is in force. Changes nothing."""
        await self._registry.reload()
        parsed = read(documents, namespace=namespace)
        in_force = self._registry.views()
        new = await views_of(self._channels, [p for p in parsed.participants if not self._confined(p)], in_force)
        result = self._check(documents, namespace, {saga.metadata.namespace for saga in parsed.sagas}, new)
        confined = [finding for participant in parsed.participants for finding in self._confined(participant)]
        return CheckResult(_beside(result.findings, confined), result.sagas, result.figures, result.resources)

    def _check(
        self, documents: Sequence[Document], namespace: str, namespaces: set[str], extra: Sequence[ParticipantView] = ()
    ) -> CheckResult:
        replaced = {view.participant.metadata.full_name for view in extra}
        views = [v for v in self._registry.views() if v.participant.metadata.full_name not in replaced]
        policies = self._registry.policy_resources(namespaces or {namespace})
        return check(documents, namespace=namespace, participants=[*views, *extra], policies=policies)

    async def apply_saga(self, document: Document, namespace: str) -> tuple[Applied, CompiledSaga | None]:
        """Puts one Saga in force for new runs, if there is no error."""
        await self._registry.reload()
        parsed = read([document], namespace=namespace)
        namespaces = {saga.metadata.namespace for saga in parsed.sagas}
        result = self._check([document], namespace, namespaces)
        saga, findings = _only(result.resources.sagas, "Saga", document, result)
        if saga is None or has_errors(findings) or not result.sagas:
            return Applied(findings, None), None
        compiled = result.sagas[0]
        await self._put_saga(saga.metadata, document, compiled)
        return Applied(findings, (saga.metadata.namespace, saga.metadata.name)), compiled

    async def _put_saga(self, metadata: Metadata, document: Document, compiled: CompiledSaga) -> None:
        digest = bytes.fromhex(compiled.digest)
        now = datetime.now(UTC)
        row = SagaRow(metadata.namespace, metadata.name, digest, document.text, document.source, True, "", now)
        async with self._pool.acquire() as connection:
            await store.put_saga(connection, row, compiled.bundle)
        await self._registry.reload(force=True)

    async def apply_participant(self, document: Document, namespace: str, given: bytes) -> Applied:
        """Puts one Participant in force. One whose contract cannot be read now is in force, and not ready."""
        await self._registry.reload()
        parsed = read([document], namespace=namespace)
        contract = Contract(None)
        if len(parsed.participants) == 1 and not self._confined(parsed.participants[0]):
            contract = await contract_of(self._channels, parsed.participants[0], given or None)
            if contract.descriptors is None:
                contract = self._remembered(parsed.participants[0]) or contract
        views = [
            ParticipantView(participant, contract.descriptors, contract.message) for participant in parsed.participants
        ]
        result = self._check([document], namespace, set(), views)
        participant, findings = _only(result.resources.participants, "Participant", document, result)
        if participant is None:
            return Applied(findings)
        findings = _beside(findings, self._confined(participant))
        if has_errors(findings):
            return Applied(findings)
        metadata = participant.metadata
        row = ParticipantRow(
            metadata.namespace,
            metadata.name,
            document.text,
            document.source,
            given or None,
            contract.descriptors,
            contract.descriptors is not None,
            contract.message,
        )
        async with self._pool.acquire() as connection:
            await store.put_participant(connection, row)
        await self._registry.reload(force=True)
        return Applied(findings, (metadata.namespace, metadata.name))

    async def apply_policy(self, document: Document, namespace: str) -> Applied:
        """Puts one RetryPolicy in force, for the next attempt of every run."""
        await self._registry.reload()
        result = self._check([document], namespace, set())
        policy, findings = _only(result.resources.policies, "RetryPolicy", document, result)
        if policy is None or has_errors(findings):
            return Applied(findings)
        metadata = policy.metadata
        async with self._pool.acquire() as connection:
            row = PolicyRow(metadata.namespace, metadata.name, document.text, document.source)
            await store.put_policy(connection, row)
        await self._registry.reload(force=True)
        return Applied(findings, (metadata.namespace, metadata.name))

    async def delete(self, table: str, namespace: str, name: str) -> bool:
        """Takes a resource out of force; False when there was none."""
        async with self._pool.acquire() as connection:
            deleted = await store.delete(connection, table, namespace, name)
        await self._registry.reload(force=True)
        return deleted

    def _remembered(self, participant: Participant) -> Contract | None:
        """The contract as it is known, when the same service at the same address does not answer now."""
        for known in self._registry.participants:
            former = known.resource
            if former is None or former.metadata.full_name != participant.metadata.full_name:
                continue
            same = (former.service, former.target) == (participant.service, participant.target)
            if same and participant.descriptors.reflection and known.row.descriptors is not None:
                return Contract(known.row.descriptors)
        return None

    def _confined(self, participant: Participant) -> list[Finding]:
        try:
            self._rules.check(participant.target)
        except ConfinementError as error:
            spec = participant.metadata.node.get("spec")
            node = (spec.get("target") if spec is not None else None) or participant.service_node
            hint = "Use a target that this orchestrator's AMENDS_TARGETS allows."
            return [node.finding(codes.BAD_VALUE, f"This orchestrator does not call it: {error}.", hint)]
        return []


def _beside(findings: list[Finding], confined: list[Finding]) -> list[Finding]:
    """All findings; of a target that is malformed, that alone."""
    told = {finding.place for finding in findings if finding.is_error}
    return ordered([*findings, *(finding for finding in confined if finding.place not in told)])


def _only(found: Sequence[T], kind: str, document: Document, result: CheckResult) -> tuple[T | None, list[Finding]]:
    """The one resource that a document is to hold, with all findings."""
    parsed = result.resources
    others = len(parsed.sagas) + len(parsed.participants) + len(parsed.policies) + len(parsed.runs)
    findings = list(result.findings)
    if len(found) == 1 and others == 1:
        return found[0], findings
    if not has_errors(findings):
        message = f"The text must hold exactly one {kind}, it holds {len(found)} and {others - len(found)} others."
        hint = f"Send each {kind} by itself."
        code = codes.WRONG_KIND
        findings.append(Finding(code.id, code.severity, message, hint, Place(document.source)))
    return None, ordered(findings)
