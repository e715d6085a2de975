"""Checks resources, and puts them in force if they have no errors.

The checker is the CLI's, and runs in the worker process. This module adds what only this orchestrator knows: the
resources in force, and the participants' current contracts. Called by DefinitionService and by the refresher.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from amends_saga import codes
from amends_saga.analysis import resolve
from amends_saga.definition import Document, Participant
from amends_saga.findings import Finding, Place, has_errors, ordered

from amends_orchestrator import permissions
from amends_orchestrator.announcer import APPLIED, DELETED, NOBODY_IS_TOLD, Announcer
from amends_orchestrator.calls.channels import Channels
from amends_orchestrator.definitions import store
from amends_orchestrator.definitions.contracts import Contract, contract_of
from amends_orchestrator.definitions.registry import KnownParticipant, Registry
from amends_orchestrator.definitions.store import ParticipantRow, PolicyRow, SagaRow, StoredRoute
from amends_orchestrator.permissions import Role
from amends_orchestrator.worker.client import (
    CheckedTexts,
    CompiledBundle,
    InForce,
    ReadParticipant,
    ReadTexts,
    WorkerClient,
    failed,
)
from amends_orchestrator.worker.process import WorkError

if TYPE_CHECKING:
    from amends_chassis.database import Pool

MAX_IN_FORCE = 4 * 1024 * 1024
MAX_OF_NAMESPACE = 512 * 1024
"""The most characters of the Participants and RetryPolicies in force: of all together, and of one namespace."""
MAX_TOGETHER = 16 * 1024 * 1024
"""The most bytes of the contracts that one check reads."""


@dataclass(frozen=True, slots=True)
class Applied:
    """The result of applying a resource. `name` is its namespace and name, None if it could not be read."""

    findings: list[Finding]
    name: tuple[str, str] | None = None

    @property
    def accepted(self) -> bool:
        """Return whether the resource is in force now."""
        return self.name is not None and not has_errors(self.findings)


class DefinitionChanges:
    """Checks and applies resources against those in force."""

    def __init__(
        self,
        pool: Pool,
        registry: Registry,
        channels: Channels,
        checker: WorkerClient,
        announcer: Announcer = NOBODY_IS_TOLD,
    ) -> None:
        self.announcer = announcer
        self._pool = pool
        self._registry = registry
        self._channels = channels
        self._checker = checker

    async def check(self, documents: Sequence[Document], namespace: str) -> CheckedTexts:
        """Return all findings about documents, as if they stood beside what is in force. Change nothing."""
        await self._registry.reload()
        try:
            texts = await self._checker.read(documents, namespace)
            if texts.refused:
                return CheckedTexts(texts.refused)
            own = await asyncio.gather(*(self._looked_up(participant) for participant in texts.participants))
            return await self._check(documents, namespace, texts, own)
        except WorkError as error:
            return failed(documents, error)

    async def _check(
        self, documents: Sequence[Document], namespace: str, texts: ReadTexts, own: Sequence[Contract]
    ) -> CheckedTexts:
        """Check documents. `own` are the contracts of the Participants in them. Raises WorkError."""
        contracts = {
            participant.full_name: contract.descriptors
            for participant, contract in zip(texts.participants, own, strict=True)
            if contract.descriptors is not None
        }
        for name in self._called(texts):
            data = await store.read_contract(self._pool, *name)
            if data is not None:
                contracts["/".join(name)] = data
        size = sum(map(len, contracts.values()))
        if size > MAX_TOGETHER:
            raise WorkError(f"The contracts have {size:,} bytes together, more than {MAX_TOGETHER:,}.")
        namespaces = {of for of, _ in texts.calls} or {namespace}
        in_force = InForce(
            self._registry.manifests(),
            self._registry.policy_manifests(namespaces),
            contracts,
            self._registry.pins(namespaces),
            self._why(texts, own),
        )
        return await self._checker.check(documents, namespace, in_force)

    def _why(self, texts: ReadTexts, own: Sequence[Contract]) -> dict[str, str]:
        """Return why contracts are not known, by the full names of Participants."""
        why = {known.row.full_name: known.row.message for known in self._registry.participants if known.row.message}
        return why | {one.full_name: contract.message for one, contract in zip(texts.participants, own, strict=True)}

    def _called(self, texts: ReadTexts) -> set[tuple[str, str]]:
        """Return the Participants in force whose methods the sagas of a text call."""
        replaced = {participant.full_name for participant in texts.participants}
        resources = (known.resource for known in self._registry.participants)
        known = [resource for resource in resources if resource is not None]
        found = set()
        for namespace, service in texts.calls:
            wanted = texts.named.get((namespace, service)) or self._registry.pin(namespace, service)
            participant = resolve(service, namespace, known, wanted)
            if isinstance(participant, Participant) and participant.metadata.full_name not in replaced:
                found.add((participant.metadata.namespace, participant.metadata.name))
        return found

    async def _looked_up(self, participant: ReadParticipant) -> Contract:
        """Return the contract of a Participant that is only checked: the known one, else the one its server has now."""
        if participant.inline:
            return Contract(participant.inline)
        return await self._remembered(participant, only_reflected=False) or await self._asked(participant)

    async def _asked(self, participant: ReadParticipant) -> Contract:
        return await contract_of(
            self._channels, participant.target, participant.service, reflection=participant.reflection
        )

    async def apply_saga(self, document: Document, namespace: str) -> tuple[Applied, CompiledBundle | None]:
        """Put one Saga in force for new runs, if it has no error."""
        result = await self.check([document], namespace)
        name, findings = _only("Saga", document, result)
        if name is None or has_errors(findings) or not result.sagas:
            return Applied(findings, None), None
        permissions.current().require(Role.DEFINER, name[0])
        compiled = result.sagas[0]
        await self._put_saga(document, compiled)
        return Applied(findings, name), compiled

    async def _put_saga(self, document: Document, compiled: CompiledBundle) -> None:
        digest = bytes.fromhex(compiled.digest)
        now = datetime.now(UTC)
        row = SagaRow(compiled.namespace, compiled.name, digest, document.text, document.source, True, "", now)
        told = self.announcer.definition("saga", row.namespace, row.name, APPLIED, digest)
        async with self._pool.acquire() as connection:
            await store.put_saga(connection, row, compiled.bundle, self.routes_of(compiled), told)
        await self._registry.reload(force=True)

    def routes_of(self, compiled: CompiledBundle) -> list[StoredRoute]:
        """Return the routes with which a saga was checked."""
        found = []
        for service, participant in compiled.routes.items():
            former = self._registry.routes.get((compiled.namespace, service))
            named_by = former.named_by if former is not None and former.named_by != compiled.name else ""
            if service in compiled.named:
                named_by = compiled.name
            found.append(StoredRoute(compiled.namespace, service, participant, named_by))
        return found

    async def apply_participant(self, document: Document, namespace: str, given: bytes) -> Applied:
        """Put one Participant in force; it is not ready while its contract cannot be read."""
        await self._registry.reload()
        try:
            texts = await self._checker.read([document], namespace)
            if texts.refused:
                return Applied(texts.refused)
            own = [await self._contract_for(participant, given) for participant in texts.participants]
            result = await self._check([document], namespace, texts, own)
        except WorkError as error:
            return Applied(failed([document], error).findings)
        name, findings = _only("Participant", document, result)
        findings = ordered([*findings, *self._too_much(document, name)])
        if name is None or has_errors(findings):
            return Applied(findings)
        permissions.current().require(Role.DEFINER, name[0])
        contract = own[0]
        is_known = contract.descriptors is not None
        methods = result.methods.get("/".join(name))
        row = ParticipantRow(*name, document.text, document.source, is_known, contract.message, methods)
        told = self.announcer.definition("participant", *name, APPLIED)
        async with self._pool.acquire() as connection:
            await store.put_participant(connection, row, given or None, contract.descriptors, told)
        await self._registry.reload(force=True)
        return Applied(findings, name)

    async def _contract_for(self, participant: ReadParticipant, given: bytes) -> Contract:
        if given or participant.inline:
            return Contract(given or participant.inline)
        contract = await self._asked(participant)
        if contract.descriptors is None:
            return await self._remembered(participant, only_reflected=True) or contract
        return contract

    async def apply_policy(self, document: Document, namespace: str) -> Applied:
        """Put one RetryPolicy in force, for the next attempt of every run."""
        result = await self.check([document], namespace)
        name, findings = _only("RetryPolicy", document, result)
        findings = ordered([*findings, *self._too_much(document, name)])
        if name is None or has_errors(findings):
            return Applied(findings)
        permissions.current().require(Role.DEFINER, name[0])
        told = self.announcer.definition("retry_policy", *name, APPLIED)
        async with self._pool.acquire() as connection:
            await store.put_policy(connection, PolicyRow(*name, document.text, document.source), told)
        await self._registry.reload(force=True)
        return Applied(findings, name)

    async def delete(self, table: str, namespace: str, name: str) -> bool:
        """Take a resource out of force; return False when there was none."""
        told = self.announcer.definition(table, namespace, name, DELETED)
        async with self._pool.acquire() as connection:
            deleted = await store.delete(connection, table, namespace, name, told)
        await self._registry.reload(force=True)
        return deleted

    async def recheck(self, known: KnownParticipant, contract: bytes) -> CheckedTexts:
        """Return the findings about a Participant in force, if it had this contract. Raises WorkError."""
        row = known.row
        document = Document(row.source, row.manifest)
        texts = await self._checker.read([document], row.namespace)
        return await self._check([document], row.namespace, texts, [Contract(contract)] * len(texts.participants))

    async def _remembered(self, participant: ReadParticipant, *, only_reflected: bool) -> Contract | None:
        """Return the known contract of the same service at the same address, None without one."""
        for known in self._registry.participants:
            former = known.resource
            if former is None or former.metadata.full_name != participant.full_name or not known.row.is_known:
                continue
            same = (former.service, former.target) == (participant.service, participant.target)
            if same and (participant.reflection or not only_reflected):
                data = await store.read_contract(self._pool, participant.namespace, participant.name)
                return Contract(data) if data is not None else None
        return None

    def _too_much(self, document: Document, name: tuple[str, str] | None) -> list[Finding]:
        """Return a finding if, with this text, the texts in force would have too many characters."""
        if name is None:
            return []
        rows: list[ParticipantRow | PolicyRow] = [known.row for known in self._registry.participants]
        rows += [known.row for known in self._registry.policies]
        others = [row for row in rows if (row.namespace, row.name) != name]
        place = Place(document.source)
        found = []
        for whose, most, size in (
            (f"of namespace {name[0]}", MAX_OF_NAMESPACE, _size(row for row in others if row.namespace == name[0])),
            ("of all namespaces", MAX_IN_FORCE, _size(others)),
        ):
            if size + len(document.text) > most:
                message = f"The Participants and RetryPolicies {whose} would have more than {most:,} characters."
                hint = "Delete some of them, or write them shorter."
                found.append(Finding(codes.TOO_LARGE.id, codes.TOO_LARGE.severity, message, hint, place))
        return found


def _size(rows: Iterable[ParticipantRow | PolicyRow]) -> int:
    return sum(len(row.manifest) for row in rows)


def _only(kind: str, document: Document, result: CheckedTexts) -> tuple[tuple[str, str] | None, list[Finding]]:
    """Return namespace and name of the one resource that the document must hold, with all findings."""
    findings = list(result.findings)
    found = [(namespace, name) for of, namespace, name in result.resources if of == kind]
    if len(found) == 1 and len(result.resources) == 1:
        return found[0], findings
    if not has_errors(findings):
        others = len(result.resources) - len(found)
        message = f"The text must hold exactly one {kind}, it holds {len(found)} and {others} others."
        hint = f"Send each {kind} by itself."
        code = codes.WRONG_KIND
        findings.append(Finding(code.id, code.severity, message, hint, Place(document.source)))
    return None, ordered(findings)
