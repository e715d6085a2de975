"""Looks every minute whether participants' contracts have changed, and whether the sagas in force still fit them.

A contract that breaks a saga leaves the version in force alone and marks it not ready; one that changes what a saga
reaches puts a new version in force for new runs. One replica at a time does it.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import structlog
from amends_saga.definition import Document
from amends_saga.findings import has_errors

from amends_orchestrator.calls.channels import Channels
from amends_orchestrator.definitions import store
from amends_orchestrator.definitions.apply import Definitions
from amends_orchestrator.definitions.contracts import contract_of
from amends_orchestrator.definitions.registry import KnownParticipant, Registry
from amends_orchestrator.definitions.store import ParticipantRow, SagaRow
from amends_orchestrator.journal.connection import Connect

CONTRACT_CHANGED = "contracts.changed"
CONTRACT_UNREADABLE = "contracts.unreadable"
SAGA_NOT_READY = "sagas.not_ready"
EVERY = timedelta(seconds=60)
_LOCK = "amends.contracts.refresh"
log = structlog.get_logger(__name__)


class Refresher:
    """Keeps contracts fresh."""

    def __init__(self, connect: Connect, registry: Registry, channels: Channels, definitions: Definitions) -> None:
        self._connect = connect
        self._registry = registry
        self._channels = channels
        self._definitions = definitions

    async def run(self) -> None:
        """Refreshes for ever. Raises when the database is away; it is started again."""
        while True:
            await asyncio.sleep(EVERY.total_seconds())
            await self.refresh()

    async def refresh(self) -> None:
        """Refreshes once, unless another replica is at it.

        The lock has a connection beside the pool: services are called meanwhile, and may take their time.
        """
        connection = await self._connect()
        try:
            if not await connection.fetchval("SELECT pg_try_advisory_lock(hashtext($1))", _LOCK):
                return
            await self._registry.reload()
            for known in self._registry.participants:
                await self._refresh_one(connection, known)
            await self._registry.reload()
            for saga in list(self._registry.sagas.values()):
                await self._look_again(connection, saga)
        finally:
            await connection.close()  # and with it the lock

    async def _refresh_one(self, connection: Any, known: KnownParticipant) -> None:
        row = known.row
        if known.resource is None or row.given is not None or not known.resource.descriptors.reflection:
            return
        contract = await contract_of(self._channels, known.resource, None)
        if contract.descriptors is None:
            if row.descriptors is None and row.message == contract.message:
                return
            log.warning(CONTRACT_UNREADABLE, participant=known.resource.metadata.full_name, why=contract.message)
            if row.descriptors is not None:  # what is known stays in force: the service may just be restarting
                return
        elif contract.descriptors == row.descriptors and row.ready:
            return
        fresh = ParticipantRow(
            row.namespace,
            row.name,
            row.manifest,
            row.source,
            row.given,
            contract.descriptors,
            contract.descriptors is not None,
            contract.message,
        )
        log.info(CONTRACT_CHANGED, participant=known.resource.metadata.full_name)
        await store.put_participant(connection, fresh)

    async def _look_again(self, connection: Any, saga: SagaRow) -> None:
        result = await self._definitions.check([Document(saga.source, saga.manifest)], saga.namespace)
        errors = [finding for finding in result.findings if finding.is_error]
        if has_errors(errors) or not result.sagas:
            message = errors[0].message if errors else "it could not be read again"
            if saga.ready or saga.message != message:
                log.warning(SAGA_NOT_READY, saga=f"{saga.namespace}/{saga.name}", why=message)
                await store.mark_saga(connection, saga.namespace, saga.name, ready=False, message=message)
            return
        compiled = result.sagas[0]
        if compiled.digest != saga.digest.hex():
            await self._definitions.apply_saga(Document(saga.source, saga.manifest), saga.namespace)
        elif not saga.ready:
            await store.mark_saga(connection, saga.namespace, saga.name, ready=True, message="")
