"""Puts the orchestrator together: journal, call path, runs, API. Called by `__main__` and by tests."""

from __future__ import annotations

import asyncio
import gc
import socket
from contextlib import AbstractContextManager
from datetime import timedelta
from functools import partial
from uuid import UUID, uuid4

import structlog
from amends_chassis.followed import FollowedFile, RulesError
from amends_chassis.service import Runtime

from amends.events.v1.webhooks_pb2_grpc import add_WebhookServiceServicer_to_server
from amends.saga.v1.definition_service_pb2_grpc import add_DefinitionServiceServicer_to_server
from amends_orchestrator import permissions, retention
from amends_orchestrator.announcer import PUBLISHES, SOURCE, Announcer
from amends_orchestrator.api import definitions as definition_api
from amends_orchestrator.api import runs as run_api
from amends_orchestrator.api import webhooks as webhook_api
from amends_orchestrator.api.permitted import permitted
from amends_orchestrator.api.run_decisions import RunDecisions
from amends_orchestrator.api.start_run import RunStarter
from amends_orchestrator.api.views import Views
from amends_orchestrator.api.watched_runs import WatchedRuns
from amends_orchestrator.calls.channels import Channels
from amends_orchestrator.calls.guards import Guards
from amends_orchestrator.calls.router import Router
from amends_orchestrator.calls.sender import Sender
from amends_orchestrator.definitions.changes import DefinitionChanges
from amends_orchestrator.definitions.refresh import Refresher
from amends_orchestrator.definitions.registry import Registry
from amends_orchestrator.journal import claims
from amends_orchestrator.journal.connection import connector
from amends_orchestrator.journal.ids import RunIds
from amends_orchestrator.journal.partitions import make_partitions
from amends_orchestrator.journal.reader import read_secret
from amends_orchestrator.journal.telling import Announcement
from amends_orchestrator.journal.writer import JournalWriter
from amends_orchestrator.runner.claimer import Claimer
from amends_orchestrator.runner.fleet import Fleet, Limits
from amends_orchestrator.runner.heartbeat import Heartbeat
from amends_orchestrator.runner.host import RunHost
from amends_orchestrator.runner.request_server import RequestServer
from amends_orchestrator.runner.starts import RunStarts
from amends_orchestrator.settings import Settings
from amends_orchestrator.webhooks.destinations import parse
from amends_orchestrator.webhooks.sender import Manner, WebhookSender
from amends_orchestrator.worker.client import WorkerClient
from amends_orchestrator.worker.process import WorkerProcess

DRAINED = "runs.drained"
# A run makes thousands of objects and few cycles: with Python's defaults the collector takes a tenth of all time.
GC_THRESHOLDS = (50_000, 20, 100)
DRAIN_WITHIN = timedelta(seconds=4)
_log = structlog.get_logger(__name__)


class Orchestrator:
    """The parts of one process, and its background work."""

    def __init__(self, runtime: Runtime, settings: Settings) -> None:
        url = settings.database_url
        if url is None:
            raise LookupError("the orchestrator needs AMENDS_DATABASE_URL (or AMENDS_DATABASE_URL_FILE)")
        if settings.roles is not None and settings.tls_dir is None:
            raise RulesError("AMENDS_ROLES names callers by their certificates, so it needs AMENDS_TLS_DIR too")
        self._runtime = runtime
        self._settings = settings
        self.process = uuid4()
        self._pool = runtime.database.pool
        self.webhooks = _webhooks(runtime, settings)
        announcer = _announcer(runtime, settings, self.webhooks)
        connect = connector(url.get_secret_value, settings.name)
        rules = settings.target_rules()
        ids = RunIds()
        self.channels = Channels(rules, max_message_bytes=settings.max_message_bytes, certificates=runtime.certificates)
        router = Router(self.channels, Guards())
        self.writer = JournalWriter(connect)
        self.host = RunHost(self.writer, router, Sender(self._span), ids, announcer)
        limits = Limits(settings.hot_runs, settings.passivate_after, hot_bytes=settings.hot_bytes)
        self.fleet = Fleet(self.process, self.host, self._release_claim, limits)
        self.starts = RunStarts(self.host, self.fleet)
        name = f"{settings.name}@{socket.gethostname()}"
        self.heartbeat = Heartbeat(self.process, name, settings.lease, connect, ids)
        self.worker = WorkerProcess()
        checker = WorkerClient(self.worker, rules)
        self.registry = Registry(self._pool, router, self.channels, checker)
        self.definitions = DefinitionChanges(self._pool, self.registry, self.channels, checker, announcer)
        self.refresher = Refresher(connect, self.registry, self.channels, self.definitions)
        self._requests = RequestServer(self.fleet, connect, self._resources_changed)
        self._claimer = Claimer(self.fleet, self.registry, connect, self._requests, settings.poll)
        self._reloads = asyncio.Event()

    async def start(self) -> None:
        """Create partitions and the lease, read the resources in force, and begin to work."""
        gc.set_threshold(*GC_THRESHOLDS)
        async with self._pool.acquire() as connection:
            await make_partitions(connection)
            self.host.hold_secret(await read_secret(connection))
        await self.heartbeat.beat(self.host)
        await self.registry.reload()
        runtime, most = self._runtime, self._settings.max_input_bytes
        views = Views(self._pool, self.registry, self.host, self.fleet, self._settings.max_message_bytes)
        watched = WatchedRuns(self._pool, self._settings.watchers)
        starter = RunStarter(self.host, self.fleet, self.starts, views)
        decisions = RunDecisions(self.fleet, views, self._claimer, most)
        runs = run_api.RunApi(views, starter, decisions, watched)
        definitions = definition_api.DefinitionApi(self._pool, self.registry, self.definitions)
        if self._settings.roles is not None:
            bindings = FollowedFile(self._settings.roles, permissions.parse)
            runtime.around_events = partial(permitted, bindings=bindings, views=views)
        guarded = runtime.around_events
        runtime.add(run_api.registrar(most), guarded(runs), run_api.SERVICE)
        runtime.add(add_DefinitionServiceServicer_to_server, guarded(definitions), definition_api.SERVICE)
        webhooks = webhook_api.WebhookApi(self._pool, self.webhooks)
        runtime.add(add_WebhookServiceServicer_to_server, guarded(webhooks), webhook_api.SERVICE)
        forgetting = partial(retention.forgetting_webhooks, self._pool, self.webhooks, self._settings.webhook_retention)
        runtime.background("webhooks.forgetting", forgetting)
        if self.webhooks is not None:
            runtime.background("webhooks", self.webhooks.run)
            runtime.background("webhooks.counting", partial(retention.counting_webhooks, self._pool, self.webhooks))
        runtime.background("runs", self._run)
        runtime.background("watches", watched.run)
        runtime.background("resources", self._reload)
        runtime.background("requests", self._requests.run)
        runtime.background("contracts", self.refresher.run)
        runtime.background("journal.readiness", self._report_journal)
        runtime.background("counting", lambda: retention.counting(self._pool))
        runtime.background(
            "housekeeping", lambda: retention.housekeeping(self._pool, self._settings.idempotency_retention)
        )

    async def _run(self) -> None:
        """Run the writer, the lease and the claims, then drain: one task, because the order of ending matters."""
        work = [
            asyncio.create_task(self.writer.run(), name="journal.writer"),
            asyncio.create_task(self.heartbeat.run(self.host), name="lease"),
            asyncio.create_task(self._claimer.run(), name="claims"),
        ]
        draining = asyncio.create_task(self._drain_when_asked())
        try:
            done, _ = await asyncio.wait([*work, draining], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await asyncio.wait(work, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            try:
                if self._runtime.draining.is_set():
                    await draining
            finally:
                for task in (*work, draining):
                    task.cancel()
                await asyncio.gather(*work, draining, return_exceptions=True)
                self._claimer.close()
                await self.worker.close()
                if self._runtime.draining.is_set():
                    await self.fleet.stop()
                    await self.heartbeat.end()
                    await self.channels.close()

    async def _drain_when_asked(self) -> None:
        await self._runtime.draining.wait()
        left = await self.fleet.drain(DRAIN_WITHIN)
        _log.info(DRAINED, left_to_takeover=left)

    def _resources_changed(self) -> None:
        self._reloads.set()

    async def _reload(self) -> None:
        while True:
            await self._reloads.wait()
            self._reloads.clear()
            await self.registry.reload()

    async def _report_journal(self) -> None:
        """Report not ready while the journal cannot be written, so that no run is accepted that would be lost."""
        while True:
            await self._runtime.health.report("journal", self.writer.reachable.is_set())
            await asyncio.sleep(0.2)

    async def _release_claim(
        self, run_id: UUID, fence: int, after: timedelta, reason: str, message: str, event: Announcement | None
    ) -> None:
        async with self._pool.acquire() as connection:
            await claims.release(connection, run_id, fence, after, reason, message, event)

    def _span(self, name: str, traceparent: str, attributes: dict[str, str]) -> AbstractContextManager[None]:
        return self._runtime.span(name, traceparent, **attributes)


def _webhooks(runtime: Runtime, settings: Settings) -> WebhookSender | None:
    if settings.webhooks is None:
        return None
    destinations = FollowedFile(settings.webhooks, parse)
    return WebhookSender(runtime.database.pool, destinations, runtime.draining, Manner(within=settings.webhook_timeout))


def _announcer(runtime: Runtime, settings: Settings, webhooks: WebhookSender | None) -> Announcer:
    wanted = webhooks.wanted if webhooks is not None else None
    if settings.broker is None:
        return Announcer(wanted=wanted)
    return Announcer(publish=True, wanted=wanted, outbox=runtime.publishes(SOURCE, *PUBLISHES))


async def assemble(runtime: Runtime) -> None:
    """Assemble an orchestrator whose settings are `Settings`. Raises LookupError without a database URL."""
    assert isinstance(runtime.settings, Settings)
    await Orchestrator(runtime, runtime.settings).start()
