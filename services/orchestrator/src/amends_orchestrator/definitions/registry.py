"""The resources in force, in memory: what StartRun, the call path and the checker look at.

Read again whenever another replica says that something changed. Pinned definitions of runs are kept apart, by digest,
and never change.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import structlog
from amends_saga.analysis import ParticipantView
from amends_saga.bundle import BundleError
from amends_saga.compiled import CompiledSaga, load_bundle
from amends_saga.definition import Document, Participant, RetryPolicyResource, read

from amends_orchestrator.calls.channels import Channels
from amends_orchestrator.calls.router import Router
from amends_orchestrator.definitions import store
from amends_orchestrator.definitions.store import ParticipantRow, PolicyRow, SagaRow
from amends_orchestrator.runner.claimer import DefinitionError

RESOURCES_READ = "resources.read"
RESOURCE_UNREADABLE = "resources.unreadable"
PINNED = 256
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class KnownParticipant:
    """A Participant in force with the resource it was made of; None when this version cannot read the text."""

    row: ParticipantRow
    resource: Participant | None


@dataclass(frozen=True, slots=True)
class KnownPolicy:
    """A RetryPolicy in force with the resource it was made of."""

    row: PolicyRow
    resource: RetryPolicyResource | None


class Registry:
    """What is in force. One for each process."""

    def __init__(self, pool: Any, router: Router, channels: Channels) -> None:
        self._pool = pool
        self._router = router
        self._channels = channels
        self._version = -1
        self._loading = asyncio.Lock()
        self._pinned: OrderedDict[bytes, CompiledSaga] = OrderedDict()
        self.sagas: dict[tuple[str, str], SagaRow] = {}
        self.participants: list[KnownParticipant] = []
        self.policies: list[KnownPolicy] = []

    async def reload(self, *, force: bool = False) -> None:
        """Reads everything in force if it has changed. Raises what the database says."""
        async with self._loading, self._pool.acquire() as connection:
            if not force and await store.version(connection) == self._version:
                return
            stored = await store.read_all(connection)
            self.sagas = {(row.namespace, row.name): row for row in stored.sagas}
            self.participants = [KnownParticipant(row, participant_of(row)) for row in stored.participants]
            self.policies = [KnownPolicy(row, policy_of(row)) for row in stored.policies]
            self._version = stored.version
        known = [entry.resource for entry in self.participants if entry.resource is not None]
        policies = [entry.resource for entry in self.policies if entry.resource is not None]
        self._router.put(known, [(policy.metadata.namespace, policy.named()) for policy in policies])
        await self._channels.keep_only({participant.target for participant in known})
        log.info(RESOURCES_READ, version=self._version, sagas=len(self.sagas), participants=len(self.participants))

    async def saga(self, namespace: str, name: str) -> SagaRow | None:
        """The Saga in force for new runs; looks again before it says that there is none."""
        row = self.sagas.get((namespace, name))
        if row is None:
            await self.reload()
            row = self.sagas.get((namespace, name))
        return row

    def check_granted(self, namespace: str, compiled: CompiledSaga) -> None:
        """Whether everything that a saga calls may be called now; a resource may have changed since it was checked.

        Raises RouteError with a sentence for people. The same is asked again at each call.
        """
        for step in compiled.plan.steps:
            self._router.way(namespace, step.action.service, step.action.method)
            if step.compensation is not None:
                self._router.way(namespace, step.compensation.service, step.compensation.method)

    async def pinned(self, digest: bytes) -> CompiledSaga:
        """The definition that a run is pinned to. Raises DefinitionError."""
        known = self._pinned.get(digest)
        if known is not None:
            self._pinned.move_to_end(digest)
            return known
        bundle = await store.read_definition(self._pool, digest)
        if bundle is None:
            raise DefinitionError(f"the definition {digest.hex()} is not kept any more")
        try:
            compiled = load_bundle(bundle)
        except BundleError as error:
            raise DefinitionError(str(error)) from None
        self._pinned[digest] = compiled
        if len(self._pinned) > PINNED:
            self._pinned.popitem(last=False)
        return compiled

    def views(self) -> list[ParticipantView]:
        """The Participants in force with their contracts, for the checker."""
        return [
            ParticipantView(entry.resource, entry.row.descriptors, entry.row.message)
            for entry in self.participants
            if entry.resource is not None
        ]

    def policy_resources(self, namespaces: set[str]) -> list[RetryPolicyResource]:
        """The RetryPolicies in force in some namespaces."""
        known = [entry.resource for entry in self.policies if entry.resource is not None]
        return [policy for policy in known if policy.metadata.namespace in namespaces]


def participant_of(row: ParticipantRow) -> Participant | None:
    """The resource in a stored text."""
    found = read([Document(row.source, row.manifest)], namespace=row.namespace).participants
    if not found:
        log.error(RESOURCE_UNREADABLE, kind="Participant", namespace=row.namespace, name=row.name)
    return found[0] if found else None


def policy_of(row: PolicyRow) -> RetryPolicyResource | None:
    """The resource in a stored text."""
    found = read([Document(row.source, row.manifest)], namespace=row.namespace).policies
    if not found:
        log.error(RESOURCE_UNREADABLE, kind="RetryPolicy", namespace=row.namespace, name=row.name)
    return found[0] if found else None
