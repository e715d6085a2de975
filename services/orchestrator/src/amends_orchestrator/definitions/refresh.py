"""Checks every minute whether participants' contracts have changed and still fit the sagas in force.

If a contract breaks a saga, the version in force stays and is marked not ready. If a contract changes the messages that
a saga uses, a new version is put in force for new runs. A contract that cannot be used at all is refused: its
Participant is marked, and the former contract stays. One replica at a time does this, and a failure with one resource
does not affect the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from datetime import timedelta

import structlog
from amends_chassis.database import Transacts
from amends_saga import codes
from amends_saga.definition import Document
from amends_saga.findings import Finding

from amends_orchestrator.announcer import CONTRACT, NOT_READY, READY
from amends_orchestrator.calls.channels import Channels
from amends_orchestrator.definitions import store
from amends_orchestrator.definitions.changes import DefinitionChanges
from amends_orchestrator.definitions.contracts import contract_of
from amends_orchestrator.definitions.registry import KnownParticipant, Registry
from amends_orchestrator.definitions.store import ParticipantRow, SagaRow
from amends_orchestrator.journal.connection import Connect
from amends_orchestrator.journal.telling import Announcement
from amends_orchestrator.worker.process import WorkError

CONTRACT_CHANGED = "contracts.changed"
CONTRACT_UNREADABLE = "contracts.unreadable"
CONTRACT_REFUSED = "contracts.refused"
SAGA_NOT_READY = "sagas.not_ready"
REFRESH_FAILED = "contracts.refresh_failed"
EVERY = timedelta(seconds=60)
UNUSABLE = frozenset({codes.DESCRIPTORS_BROKEN.id, codes.TOO_LARGE.id})
"""Findings that make a contract unusable for every saga."""
_log = structlog.get_logger(__name__)


class Refresher:
    """Keeps the contracts in use up to date."""

    def __init__(
        self, connect: Connect, registry: Registry, channels: Channels, definitions: DefinitionChanges
    ) -> None:
        self._connect = connect
        self._registry = registry
        self._channels = channels
        self._definitions = definitions

    async def run(self) -> None:
        """Refresh for ever. Raises the database's errors; the caller starts it again."""
        while True:
            await asyncio.sleep(EVERY.total_seconds())
            await self.refresh()

    async def refresh(self) -> None:
        """Refresh once, unless another replica is refreshing.

        The lock is held by a connection beside the pool, because services are called meanwhile and may be slow.
        """
        connection = await self._connect()
        try:
            if not await store.lock_refresh(connection):
                return
            await self._registry.reload()
            for known in self._registry.participants:
                await _by_itself(self._refresh_one(connection, known), "Participant", known.row.full_name)
            await self._registry.reload()
            for saga in list(self._registry.sagas.values()):
                await _by_itself(self._look_again(connection, saga), "Saga", f"{saga.namespace}/{saga.name}")
        finally:
            await connection.close()  # this releases the lock too

    async def _refresh_one(self, connection: Transacts, known: KnownParticipant) -> None:
        row, resource = known.row, known.resource
        if resource is None:
            return
        former = await store.read_contract(connection, row.namespace, row.name)
        if row.is_given or not resource.descriptors.reflection:
            if former is not None and row.methods is None:
                await self._take(connection, known, former, former)
            return
        contract = await contract_of(self._channels, resource.target, resource.service, reflection=True)
        if contract.descriptors is None:
            if row.is_known or row.message == contract.message:  # the service may just be restarting
                return
            _log.warning(CONTRACT_UNREADABLE, participant=row.full_name, why=contract.message)
            told = self._told("participant", row, NOT_READY)
            await store.put_contract(connection, replace(row, ready=False, message=contract.message), None, told)
        elif contract.descriptors != former or not row.ready or row.methods is None:
            await self._take(connection, known, contract.descriptors, former)

    async def _take(
        self, connection: Transacts, known: KnownParticipant, contract: bytes, former: bytes | None
    ) -> None:
        """Use a new contract; if it is unusable, keep the former one and mark the Participant."""
        row = known.row
        try:
            result = await self._definitions.recheck(known, contract)
            refused = _unusable(result.findings)
        except WorkError as error:
            refused = str(error)
        if refused:
            message = f"its contract cannot be used, the former one stays: {refused}"
            if row.message != message:
                _log.warning(CONTRACT_REFUSED, participant=row.full_name, why=refused)
                told = self._told("participant", row, NOT_READY)
                await store.put_contract(connection, replace(row, ready=False, message=message), former, told)
            return
        _log.info(CONTRACT_CHANGED, participant=row.full_name)
        fresh = replace(row, ready=True, message="", methods=result.methods.get(row.full_name))
        told = None
        if not row.ready or contract != former:
            told = self._told("participant", row, CONTRACT if row.ready else READY)
        await store.put_contract(connection, fresh, contract, told)

    async def _look_again(self, connection: Transacts, saga: SagaRow) -> None:
        document = Document(saga.source, saga.manifest)
        result = await self._definitions.check([document], saga.namespace)
        errors = [finding for finding in result.findings if finding.is_error]
        if errors or not result.sagas:
            message = errors[0].message if errors else "it could not be read again"
            if saga.ready or saga.message != message:
                _log.warning(SAGA_NOT_READY, saga=f"{saga.namespace}/{saga.name}", why=message)
                told = self._told("saga", saga, NOT_READY)
                await store.mark_saga(connection, saga.namespace, saga.name, ready=False, message=message, told=told)
            return
        compiled = result.sagas[0]
        if compiled.digest != saga.digest.hex():
            await self._definitions.apply_saga(document, saga.namespace)
            return
        if not saga.ready:
            told = self._told("saga", saga, READY)
            await store.mark_saga(connection, saga.namespace, saga.name, ready=True, message="", told=told)
        routes = self._definitions.routes_of(compiled)
        if any(self._registry.routes.get((route.namespace, route.service)) != route for route in routes):
            await store.put_routes(connection, routes)
            await self._registry.reload()

    def _told(self, table: str, row: ParticipantRow | SagaRow, change: str) -> Announcement | None:
        return self._definitions.announcer.definition(table, row.namespace, row.name, change)


def _unusable(findings: list[Finding]) -> str:
    return next((finding.message for finding in findings if finding.is_error and finding.code in UNUSABLE), "")


async def _by_itself(work: Awaitable[None], kind: str, name: str) -> None:
    """Do the work for one resource; log its failure, so that the other resources get their turn."""
    try:
        await work
    except Exception as error:
        _log.warning(REFRESH_FAILED, kind=kind, name=name, error=type(error).__name__, exc_info=error)
