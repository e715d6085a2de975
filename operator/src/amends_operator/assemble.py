"""Puts the operator together and lives its life: called by `__main__`.

One event loop: kopf's watches, a work queue for each kind, the resync, and the HTTP server for probes. When any of
them ends, all end, and Kubernetes starts the process again; nothing is kept that could be lost.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import kopf
import structlog
from amends_chassis import logs
from amends_chassis.certificates import Certificates
from prometheus_client import CollectorRegistry

from amends_operator import watching
from amends_operator.definitions.base import Tools
from amends_operator.definitions.choreography import ChoreographyReconciler
from amends_operator.definitions.compiled import CompiledPolicies
from amends_operator.definitions.mounting import Pods
from amends_operator.definitions.participant import ParticipantReconciler
from amends_operator.definitions.policy import PolicyReconciler
from amends_operator.definitions.saga import SagaReconciler
from amends_operator.health import HealthServer, Heartbeats
from amends_operator.kube.client import ApiError, Client
from amends_operator.kube.events import Events
from amends_operator.kube.login import LoginError, credentials
from amends_operator.kube.objects import GROUP, VERSION, Key, Objects, ResourceKind
from amends_operator.kube.statuses import Statuses
from amends_operator.metrics import Metrics
from amends_operator.monitor import MonitorClient
from amends_operator.orchestrator import OrchestratorClient
from amends_operator.peering import Turn
from amends_operator.queue import WorkQueue
from amends_operator.resync import Resync
from amends_operator.runs.actions import RunActions
from amends_operator.runs.observed import RunLimits
from amends_operator.runs.reconciler import RunReconciler
from amends_operator.settings import Settings

STARTED = "operator.started"
STOPPED = "operator.stopped"
NO_CRDS = "operator.waits_for_crds"
CANNOT_START = "operator.cannot_start"
DEFINITION_WORKERS = 4
RUN_WORKERS = 32
"""The number of starts at once, too: more would make each of them slower, and slow ones cost more writes."""
SOON = timedelta(seconds=1)
_log = structlog.get_logger(__name__)


class Operator:
    """The parts of one operator process."""

    def __init__(self, settings: Settings, registry: CollectorRegistry) -> None:
        self._settings = settings
        self._registry = registry
        self._metrics = Metrics(registry)
        self._client = Client(credentials, self._metrics.wrote)
        own = None if settings.tls_dir is None else Certificates.shown_in(registry, settings.tls_dir)
        self._orchestrator = OrchestratorClient(settings.orchestrator_target, settings.timeline, own)
        target = settings.monitor_target
        self._monitor = None if target is None else MonitorClient(target, own)
        self.objects = Objects(self._changed)
        self._beats = Heartbeats(2 * settings.watch_silence)
        self._turn = Turn(self._client, settings, self._turned)
        events = Events(self._client, socket.gethostname())
        statuses = Statuses(self._client, self.objects, events)
        tools = Tools(
            client=self._client,
            objects=self.objects,
            statuses=statuses,
            orchestrator=self._orchestrator,
            resync=settings.resync,
            look_again=self.look_again,
        )
        limits = RunLimits(
            quick=settings.quick,
            slowest_look=settings.slowest_look,
            ttl=settings.run_ttl,
            resync=settings.resync,
            deletion_patience=settings.deletion_patience,
        )
        actions = RunActions(
            client=self._client,
            objects=self.objects,
            statuses=statuses,
            orchestrator=self._orchestrator,
            events=events,
            refresh_saga=self._look_soon,
        )
        self._policies = PolicyReconciler(tools)
        pods = Pods(self._client, settings.policies_config_map) if settings.touch_pods else None
        compiled = CompiledPolicies(self._client, self.objects, settings.policies_config_map, pods)
        self._compiled = WorkQueue("compiled", compiled.reconcile, workers=1, admit=self._turn.wait)
        self._queues: dict[ResourceKind, WorkQueue[Key]] = {
            ResourceKind.SAGA: self._queue(ResourceKind.SAGA, SagaReconciler(tools).reconcile),
            ResourceKind.PARTICIPANT: self._queue(ResourceKind.PARTICIPANT, ParticipantReconciler(tools).reconcile),
            ResourceKind.POLICY: self._queue(ResourceKind.POLICY, self._reconcile_policy),
            ResourceKind.CHOREOGRAPHY: self._queue(
                ResourceKind.CHOREOGRAPHY, ChoreographyReconciler(tools, self._monitor).reconcile
            ),
            ResourceKind.RUN: self._queue(ResourceKind.RUN, RunReconciler(actions, limits).reconcile, RUN_WORKERS),
        }
        for kind in ResourceKind:
            self._watch_figures(kind)
        self._resync = Resync(
            self._client,
            self.objects,
            self._orchestrator,
            self._monitor,
            self._beats,
            self._turn,
            settings,
            self.look_again,
            self._metrics.orphans.set,
        )

    def _queue(self, kind: ResourceKind, reconcile: Any, workers: int = DEFINITION_WORKERS) -> WorkQueue[Key]:
        observe = self._metrics.observer(kind)
        return WorkQueue(kind.value, reconcile, workers=workers, admit=self._turn.wait, observe=observe)

    def _turned(self, ours: bool) -> None:
        self._metrics.active.set(ours)
        self._beats.rest(not ours)

    def _watch_figures(self, kind: ResourceKind) -> None:
        queue = self._queues[kind]
        self._metrics.watch(
            kind,
            lambda: sum(1 for _ in self.objects.of(kind)),
            lambda: len(queue),
            self._beats.silence,
        )

    def _changed(self, key: Key) -> None:
        self._queues[key.kind].add(key)

    def look_again(self, keys: Iterable[Key]) -> None:
        """Have these objects looked at, because something that they depend on may have changed."""
        for key in keys:
            self._queues[key.kind].add(key)

    def _look_soon(self, key: Key) -> None:
        if self.objects.get(key) is not None:
            self._queues[key.kind].add_after(key, SOON)

    async def _reconcile_policy(self, key: Key) -> Any:
        try:
            return await self._policies.reconcile(key)
        finally:
            self._compiled.add(key.namespace)

    async def run(self, listening: Callable[[str], None]) -> None:
        """Run until kopf ends, which it does on SIGTERM. `listening` gets the address of the HTTP server."""
        server = HealthServer(self._beats, lambda: self._resync.listed, self._registry)
        listening(await server.start(self._settings.host, self._settings.metrics_port))
        try:
            await self._wait_for_crds()
            for watch in watching.watches(self._settings):
                self._beats.expect(watch)
            _log.info(
                STARTED, namespaces=list(self._settings.namespaces), orchestrator=self._settings.orchestrator_target
            )
            await self._live()
        finally:
            await server.close()
            await self._orchestrator.close()
            if self._monitor is not None:
                await self._monitor.close()
            await self._client.close()
            _log.info(STOPPED)

    async def _live(self) -> None:
        chosen = self._settings
        identity: Any = self._turn.identity  # kopf would make one of a user's name, which images lack
        work = [asyncio.create_task(queue.run(), name=queue.name) for queue in self._queues.values()]
        work.append(asyncio.create_task(self._compiled.run(), name=self._compiled.name))
        work.append(asyncio.create_task(self._turn.run(), name="turn"))
        work.append(asyncio.create_task(self._resync.run(), name="resync"))
        work.append(
            asyncio.create_task(
                kopf.operator(
                    registry=watching.registry_of(self.objects, self._beats),
                    settings=watching.kopf_settings(chosen, self._turn.priority),
                    clusterwide=chosen.everywhere,
                    namespaces=() if chosen.everywhere else chosen.namespaces,
                    identity=identity,
                    standalone=True if chosen.peering is None else None,
                    peering_name=chosen.peering,
                    priority=self._turn.priority if chosen.peering is not None else None,
                ),
                name="kopf",
            )
        )
        try:
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    async def _wait_for_crds(self) -> None:
        """Wait until our kinds are installed: kopf finds none that come after it has looked."""
        said = False
        while True:
            try:
                found = await self._client.call("GET", f"/apis/{GROUP}/{VERSION}")
                missing = {kind.value for kind in ResourceKind} - {entry["name"] for entry in found["resources"]}
            except ApiError as error:
                missing = {str(error)}
            if not missing:
                return
            if not said:
                _log.warning(NO_CRDS, missing=sorted(missing))
                said = True
            await asyncio.sleep(0.5)


def main(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    logs.configure(settings.name, settings.log_level, settings.log_format)
    logging.getLogger("kopf").setLevel(logging.WARNING)  # a line for each event is not for people
    operator = None

    def listening(address: str) -> None:
        _report(settings, address)

    async def live() -> None:
        nonlocal operator
        operator = Operator(settings, CollectorRegistry())
        await operator.run(listening)

    try:
        asyncio.run(live())
    except (LoginError, OSError) as error:
        _log.critical(CANNOT_START, error=f"{type(error).__name__}: {error}")
        return 1
    return 0


def _report(settings: Settings, address: str) -> None:
    """Write where probes are answered to the report file, in the form that every process of ours uses."""
    path = settings.report_file
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps({"service": settings.name, "pid": os.getpid(), "metrics": address}) + "\n")
    draft.replace(path)
