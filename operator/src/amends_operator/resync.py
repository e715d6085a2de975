"""Looks at everything again from time to time, so that nothing depends on a watch that lost an event.

The first lists are those of the watches themselves. A list brings what is new to `Objects`; what a list does not have
any more is asked for by name before it counts as gone, because a list may come from a server that lags behind. What
the orchestrator has in force from objects that are gone is taken out; open runs without a SagaRun are counted and
logged, for a person to decide about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta

import structlog

from amends.monitor.v1.monitor_service_pb2 import ChoreographyInfo
from amends_operator.definitions.manifest import is_ours
from amends_operator.health import Heartbeats
from amends_operator.kube.client import ApiError, Client, NotFoundError
from amends_operator.kube.objects import Key, Objects, ResourceKind, key_of
from amends_operator.monitor import MonitorClient
from amends_operator.orchestrator import AwayError, OrchestratorClient, OrchestratorRefusedError
from amends_operator.peering import Turn
from amends_operator.runs.values import UID_KEY
from amends_operator.settings import Settings

LISTED = "resync.listed"
LEFT = "resync.orphaned_run"
POSTPONED = "resync.postponed"
SHORTEST = timedelta(seconds=1)
SOON = timedelta(seconds=30)
PATIENCE = timedelta(seconds=10)
_log = structlog.get_logger(__name__)


class Resync:
    """The safety net. `look_again` brings keys to their reconcilers."""

    def __init__(
        self,
        client: Client,
        objects: Objects,
        orchestrator: OrchestratorClient,
        monitor: MonitorClient | None,
        beats: Heartbeats,
        turn: Turn,
        settings: Settings,
        look_again: Callable[[Iterable[Key]], None],
        orphans: Callable[[float], None],
    ) -> None:
        self._client = client
        self._objects = objects
        self._orchestrator = orchestrator
        self._monitor = monitor
        self._beats = beats
        self._turn = turn
        self._settings = settings
        self._look_again = look_again
        self._orphans = orphans
        self.listed = False
        """Whether everything was listed once: before that nothing counts as gone."""

    async def run(self) -> None:
        """Compare as soon as the watches have listed, or list if they cannot; then list every `relist`."""
        relist = self._settings.relist
        await self._turn.wait()
        listing = not await self._beats.all_open(PATIENCE)
        while True:
            await self._turn.wait()
            try:
                await self.once(listing=listing)
            except (ApiError, AwayError, OrchestratorRefusedError) as error:
                _log.warning(POSTPONED, why=str(error))
                pause = min(SHORTEST, relist)
            else:
                pause = relist if listing else min(SOON, relist)
                listing = True
            await asyncio.sleep(pause.total_seconds())

    async def once(self, *, listing: bool) -> None:
        """List everything unless the watches just have, and compare.

        Raises ApiError, AwayError, OrchestratorRefusedError.
        """
        if listing:
            namespaces = [None] if self._settings.everywhere else list(self._settings.namespaces)
            for kind in ResourceKind:
                for namespace in namespaces:
                    await self._list(kind, namespace)
        self.listed = True
        await self._compare()
        if listing:  # what the watches have listed may still be on its way to us
            await self._count_orphans()

    async def _list(self, kind: ResourceKind, namespace: str | None) -> None:
        known = {key for key, _ in self._objects.of(kind, namespace)}
        there: set[Key] = set()
        async for body in self._client.objects(kind, namespace):
            there.add(key_of(kind, body))
            self._objects.seen(kind, body)
        for key in known - there:
            former = self._objects.get(key)
            try:
                self._objects.seen(kind, await self._client.read(key))
            except NotFoundError:
                if former is not None:
                    self._objects.vanished(kind, former)
        _log.debug(LISTED, kind=kind.value, namespace=namespace, found=len(there))

    async def _compare(self) -> None:
        """Have what is in force without an object reconciled: its reconciler asks the API server again."""
        gone: list[Key] = []
        for kind, infos in (
            (ResourceKind.SAGA, await self._orchestrator.sagas()),
            (ResourceKind.PARTICIPANT, await self._orchestrator.participants()),
            (ResourceKind.POLICY, await self._orchestrator.policies()),
            (ResourceKind.CHOREOGRAPHY, await self._watched()),
        ):
            for info in infos:
                key = Key(kind, info.namespace, info.name)
                if self._settings.serves(info.namespace) and is_ours(info.manifest) and self._objects.get(key) is None:
                    gone.append(key)
        self._look_again(gone)

    async def _watched(self) -> Sequence[ChoreographyInfo]:
        """Return the Choreographies that the monitor watches; none while it is away: the rest does not wait for it."""
        try:
            return [] if self._monitor is None else await self._monitor.choreographies()
        except (AwayError, OrchestratorRefusedError) as error:
            _log.warning(POSTPONED, why=str(error))
            return []

    async def _count_orphans(self) -> None:
        uids = {body["metadata"]["uid"] for _, body in self._objects.of(ResourceKind.RUN)}
        left = 0
        for run in await self._orchestrator.open_runs():
            key = run.idempotency_key
            if (
                key.startswith(UID_KEY)
                and key.removeprefix(UID_KEY) not in uids
                and self._settings.serves(run.namespace)
            ):
                left += 1
                _log.warning(LEFT, namespace=run.namespace, run_id=run.run_id, saga=run.saga)
        self._orphans(left)
