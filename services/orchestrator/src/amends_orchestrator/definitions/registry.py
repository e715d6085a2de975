"""The resources in force, in memory, for StartRun, the call path and the checker.

They are read again whenever another replica reports a change. Definitions that runs are pinned to are kept apart, by
digest, and never change.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from amends_saga.analysis import Pin
from amends_saga.bundle import BundleError
from amends_saga.compiled import CompiledSaga, load_bundle
from amends_saga.definition import Participant, RetryPolicyResource

from amends_orchestrator.calls.channels import Channels
from amends_orchestrator.calls.router import Router
from amends_orchestrator.definitions import store
from amends_orchestrator.definitions.store import ParticipantRow, PolicyRow, SagaRow, StoredRoute
from amends_orchestrator.runner.ports import DefinitionError
from amends_orchestrator.worker.client import ManifestText, WorkerClient
from amends_orchestrator.worker.process import WorkError
from amends_orchestrator.worker.resources import participant_of, policy_of

if TYPE_CHECKING:
    from amends_chassis.database import Pool

RESOURCES_READ = "resources.read"
RESOURCE_UNREADABLE = "resources.unreadable"
PINNED = 256
PINNED_BYTES = 32 * 1024 * 1024
"""About how many bytes the compiled sagas in memory may take together."""
WEIGHT = 8
"""About how many bytes of memory each byte of a bundle takes."""
SMALL = 64 * 1024
"""Bundles of at most this many bytes are loaded at once: they cannot take long."""
_log = structlog.get_logger(__name__)


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
    """The resources in force. There is one registry for each process."""

    def __init__(self, pool: Pool, router: Router, channels: Channels, checker: WorkerClient) -> None:
        self._pool = pool
        self._router = router
        self._channels = channels
        self._checker = checker
        self._version = -1
        self._loading = asyncio.Lock()
        self._pinned: OrderedDict[bytes, CompiledSaga] = OrderedDict()
        self._pinned_bytes = 0
        self.sagas: dict[tuple[str, str], SagaRow] = {}
        self.participants: list[KnownParticipant] = []
        self.policies: list[KnownPolicy] = []
        self.routes: dict[tuple[str, str], StoredRoute] = {}
        """By namespace and service."""

    async def reload(self, *, force: bool = False) -> None:
        """Read everything in force if it has changed. Raises the database's errors."""
        async with self._loading:
            async with self._pool.acquire() as connection:
                if not force and await store.version(connection) == self._version:
                    return
                stored = await store.read_all(connection)
            participants = await self._known_participants(stored.participants)
            policies = await self._known_policies(stored.policies)
            self.sagas = {(row.namespace, row.name): row for row in stored.sagas}
            self.participants, self.policies = participants, policies
            self.routes = {(route.namespace, route.service): route for route in stored.routes}
            self._version = stored.version
        known = [entry.resource for entry in self.participants if entry.resource is not None]
        named = [entry.resource for entry in self.policies if entry.resource is not None]
        pins = {key: Pin(route.participant, route.named_by) for key, route in self.routes.items()}
        self._router.put(known, [(policy.metadata.namespace, policy.named()) for policy in named], pins)
        await self._channels.keep_only({participant.target for participant in known})
        _log.info(RESOURCES_READ, version=self._version, sagas=len(self.sagas), participants=len(self.participants))

    async def _known_participants(self, rows: list[ParticipantRow]) -> list[KnownParticipant]:
        """Return the Participants of rows; parse only texts that were not known before."""
        before = {_text(known.row): known.resource for known in self.participants}
        found = []
        for row in rows:
            text = _text(row)
            if text not in before:
                await asyncio.sleep(0)  # let others run: a text may take some milliseconds
                before[text] = participant_of(*text)
                if before[text] is None:
                    _log.error(RESOURCE_UNREADABLE, kind="Participant", namespace=row.namespace, name=row.name)
            found.append(KnownParticipant(row, before[text]))
        return found

    async def _known_policies(self, rows: list[PolicyRow]) -> list[KnownPolicy]:
        before = {_text(known.row): known.resource for known in self.policies}
        found = []
        for row in rows:
            text = _text(row)
            if text not in before:
                await asyncio.sleep(0)
                before[text] = policy_of(*text)
                if before[text] is None:
                    _log.error(RESOURCE_UNREADABLE, kind="RetryPolicy", namespace=row.namespace, name=row.name)
            found.append(KnownPolicy(row, before[text]))
        return found

    async def saga(self, namespace: str, name: str) -> SagaRow | None:
        """Return the Saga in force for new runs; ask the database before saying that there is none."""
        row = self.sagas.get((namespace, name))
        if row is None:
            await self.reload()
            row = self.sagas.get((namespace, name))
        return row

    def check_granted(self, namespace: str, compiled: CompiledSaga) -> None:
        """Refuse a saga if something that it calls may not be called now. Raises RouteError.

        Resources may have changed since the saga was checked. Each call checks the same again.
        """
        for step in compiled.plan.steps:
            self._router.route(namespace, step.action.service, step.action.method)
            if step.compensation is not None:
                self._router.route(namespace, step.compensation.service, step.compensation.method)

    async def pinned(self, digest: bytes) -> CompiledSaga:
        """Return the definition that a run is pinned to. Raises DefinitionError."""
        known = self._pinned.get(digest)
        if known is not None:
            self._pinned.move_to_end(digest)
            return known
        bundle = await store.read_definition(self._pool, digest)
        if bundle is None:
            raise DefinitionError(f"the definition {digest.hex()} is not kept any more")
        await self._try_apart(bundle)
        try:
            compiled = load_bundle(bundle)
        except BundleError as error:
            raise DefinitionError(str(error)) from None
        self._keep(digest, compiled)
        return compiled

    async def _try_apart(self, bundle: bytes) -> None:
        """Load a large bundle in the worker process first. Raises DefinitionError if that takes too much.

        This version loads a saga before it puts it in force, but another version may have stored one that is too large
        here.
        """
        if len(bundle) <= SMALL:
            return
        try:
            refusal = await self._checker.refusal(bundle)
        except WorkError as error:
            refusal = str(error)
        if refusal:
            raise DefinitionError(refusal)

    def _keep(self, digest: bytes, compiled: CompiledSaga) -> None:
        former = self._pinned.pop(digest, None)
        self._pinned_bytes += _weight(compiled) - (_weight(former) if former is not None else 0)
        self._pinned[digest] = compiled
        while len(self._pinned) > PINNED or (self._pinned_bytes > PINNED_BYTES and len(self._pinned) > 1):
            _, oldest = self._pinned.popitem(last=False)
            self._pinned_bytes -= _weight(oldest)

    def pin(self, namespace: str, service: str) -> Pin | None:
        """Return through which Participant a namespace's sagas reach a service; None before the first saga."""
        route = self.routes.get((namespace, service))
        if route is None:
            return None
        named_by = route.named_by if (namespace, route.named_by) in self.sagas else ""
        return Pin(route.participant, named_by)

    def pins(self, namespaces: set[str]) -> dict[tuple[str, str], Pin]:
        """Return the pinned routes of some namespaces, by namespace and service."""
        keys = (key for key in self.routes if key[0] in namespaces)
        return {key: pin for key in keys if (pin := self.pin(*key)) is not None}

    def manifests(self) -> list[ManifestText]:
        """Return the Participants in force, for the checker."""
        return [_text(entry.row) for entry in self.participants if entry.resource is not None]

    def policy_manifests(self, namespaces: set[str]) -> list[ManifestText]:
        """Return the RetryPolicies in force in some namespaces, for the checker."""
        known = [entry.row for entry in self.policies if entry.resource is not None]
        return [_text(row) for row in known if row.namespace in namespaces]


def _text(row: ParticipantRow | PolicyRow) -> ManifestText:
    return row.source, row.manifest, row.namespace


def _weight(compiled: CompiledSaga) -> int:
    return WEIGHT * len(compiled.bundle)
