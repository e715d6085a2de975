"""The whole life of a service process, and what it gives to the code that assembles one.

A service's `__main__` calls `run(Settings(), assemble)`; `assemble` makes stores and servicers and hands them to the
`Runtime`. Tests and other processes use `running`, the same life without signals.
"""

import asyncio
import gc
import importlib.util
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import structlog
import uvloop
from amends_barrier import database_away
from amends_resilience import Backoff
from grpc_health.v1 import health_pb2_grpc
from prometheus_client import REGISTRY, CollectorRegistry, disable_created_metrics

from amends_chassis import guard, logs
from amends_chassis.admission import Admission
from amends_chassis.clients import Channel
from amends_chassis.context import Trace, current_trace, detached, in_trace
from amends_chassis.database import Database
from amends_chassis.health import Health
from amends_chassis.hosts import address, to_listen_on, why_not
from amends_chassis.interceptor import ServerInterceptor
from amends_chassis.metrics import ClientMetrics, MetricsServer, ServerMetrics
from amends_chassis.migrations import MigrationError, migrate
from amends_chassis.server import Registrar, Routes, Servicer, add_reflection, server_options
from amends_chassis.settings import ServiceSettings
from amends_chassis.web import HttpApplication, HttpServer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amends_barrier import Barrier
    from amends_events import Batches, EventHandler, Outbox
    from google.protobuf.message import Message

    from amends_chassis.access import Access
    from amends_chassis.certificates import Certificates
    from amends_chassis.events import ServiceEvents
    from amends_chassis.export import ExportedTable
    from amends_chassis.people import PeopleAccess
    from amends_chassis.policies import PolicySource
    from amends_chassis.tokens import TokenVerifier
    from amends_chassis.tracing import Tracing

_log = structlog.get_logger(__name__)

BackgroundWork = Callable[[], Awaitable[None]]

MIGRATE = "migrate"
"""The argument with which a service only migrates."""

_HEALTH = "grpc.health.v1.Health"
_RESTART = Backoff(initial=timedelta(milliseconds=100), maximum=timedelta(seconds=10))
_STEADY = timedelta(seconds=60)
"""A task that ran this long before it failed is restarted as after a first failure."""
_HEARD_WITHIN = timedelta(milliseconds=50)
"""So long those who watch our health get to hear that we stop before their streams end."""
_CANCEL_WITHIN = timedelta(seconds=5)
_EXPIRE_EVERY = timedelta(minutes=10)


class AttachedServer(Protocol):
    """A server of a protocol that is not gRPC, in this event loop."""

    address: str
    """Where it listens, as host:port."""

    async def stop(self, within: timedelta) -> None:
        """Take on nothing more, let what is under way finish within a time, and close."""


class Runtime:
    """A running process: what `assemble` gets. `settings` is the object given to `run`."""

    def __init__(
        self, settings: ServiceSettings, registry: CollectorRegistry = REGISTRY, tracing: "Tracing | None" = None
    ) -> None:
        """Prepare; nothing is opened yet. `registry` is where the service puts metrics of its own too.

        `tracing` is made from the settings unless given.
        """
        self.settings = settings
        self.registry = registry
        self.health = Health()
        self.draining = asyncio.Event()
        """Set when the process begins to stop: stop taking on work, end long polls."""
        self.barrier: Barrier | None = None
        """There after `assemble` when an added service has guarded methods."""
        self.around_events: Callable[[Any], Any] = lambda servicer: servicer
        """Makes of what is served to who is on call what asks first, in a service with rules of its own."""
        self.address = ""
        self.metrics_address = ""
        self.health_address = ""
        """Where health has a port of its own; empty where it has none."""
        self._database = _database(settings)
        self._tracing = _tracing(settings) if tracing is None else tracing
        self.certificates = _certificates(settings, registry)
        """What this process shows and trusts, for channels that are not opened by `channel`; None: plain text."""
        self._access = _access(settings)
        self.tokens = _tokens(settings, registry)
        """Verifies access tokens; None in a service that is not told who gives them out."""
        self._client_metrics = ClientMetrics(registry)
        self._server_metrics = ServerMetrics(registry)
        self._interceptor = ServerInterceptor(
            self._server_metrics,
            Admission(settings.max_concurrent_calls),
            call_timeout=settings.call_timeout,
            trace_ratio=settings.trace_ratio,
            tracing=self._tracing,
            access=self._access,
            people=_people(settings, self.tokens),
        )
        self._routes = Routes()
        self._services: list[str] = []
        self._methods: list[str] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._channels: dict[str, Channel] = {}
        self._policies: PolicySource | None = None
        self._server: grpc.aio.Server | None = None
        self._health_server: grpc.aio.Server | None = None
        self._metrics_server: MetricsServer | None = None
        self._http_servers: dict[str, HttpServer] = {}
        self._attached: dict[str, AttachedServer] = {}
        self._events: ServiceEvents | None = None

    @property
    def database(self) -> Database:
        """Return the service's database. Raises LookupError without AMENDS_DATABASE_URL."""
        if self._database is None:
            raise LookupError("this service needs AMENDS_DATABASE_URL (or AMENDS_DATABASE_URL_FILE)")
        return self._database

    def add(self, registrar: Registrar[Servicer], servicer: Servicer, service_name: str) -> None:
        """Serve `servicer` through its generated `add_..._to_server`, under its full name ("package.Service")."""
        for method in self._routes.add(registrar, servicer, service_name):
            self._server_metrics.method(method)
            self._methods.append(method)
        self._services.append(service_name)

    def publishes(self, source: str, *types: "type[Message]") -> "Outbox":
        """Return the outbox for events of these types, and publish what is written into it.

        `source` names who publishes, e.g. /shop/payments. Without AMENDS_BROKER events wait in the outbox. Raises
        ContractError for a message that is no event, LookupError without a database.
        """
        events = self.events
        outbox = events.outbox(source, *types)
        self.background("events.publish", partial(events.publish, outbox))
        return outbox

    def consumes(
        self,
        name: str,
        handlers: "Mapping[type[Message], EventHandler] | Batches",
        batch: int = 100,
        *,
        repeatable: bool = False,
    ) -> None:
        """Handle events under a name: each has its effect once, in the database of the service.

        All replicas that use the name share the work. A transaction handles up to `batch` events; let it be 1 for
        handlers that lock rows which several keys have in common. `repeatable` handlers may be given an event again
        that they have handled, if a person wants that: they do nothing outside of the database, nor twice in it.
        Raises LookupError without a database, ContractError.
        """
        self.events.declare(name, handlers, repeatable)
        consume = partial(self.events.consume, name, handlers, batch, repeatable=repeatable)
        self.background(f"events.consume.{name}", consume)

    def exports(self, *tables: "ExportedTable") -> None:
        """Serve what these tables keep as the events that led to it. Raises LookupError without a database."""
        from amends.events.v1.export_pb2_grpc import add_ExportServiceServicer_to_server
        from amends_chassis.export import NAME, ExportService

        self.add(add_ExportServiceServicer_to_server, ExportService(self.database, tables), NAME)

    @property
    def events(self) -> "ServiceEvents":
        """Return the broker and the consumers of this service, for one that begins and ends consuming as it runs.

        Raises LookupError without a database.
        """
        if self._events is None:
            from amends_chassis.events import ServiceEvents  # clients of brokers, which many a service has no use for

            self._events = ServiceEvents(self.settings, self.database, self.registry)
        return self._events

    def background(self, name: str, run: BackgroundWork) -> None:
        """Keep `run` running until the drain: when it raises it is logged and started again after a pause.

        A `run` that returns is done. It is cancelled once no call is in flight any more.
        """
        if name in self._tasks:
            raise ValueError(f"a background task is already called {name}")
        self._tasks[name] = asyncio.create_task(_supervise(name, run), name=name, context=detached())

    def serve_http(self, name: str, application: HttpApplication, port: int) -> None:
        """Answer HTTP requests at a port of their own, in threads; 0 picks a free one. The report has it as `name`.

        It is for what is small and read now and then. Raises OSError when the port is taken.
        """
        self._http_servers[name] = HttpServer(name, application, to_listen_on(self.settings.host), port)
        self._report()

    def attach(self, name: str, server: AttachedServer) -> None:
        """Stop a listening server with this process: it drains while gRPC does. The report has it as `name`."""
        self._attached[name] = server
        self._report()

    def attached(self, name: str) -> AttachedServer:
        """Return the server that was attached under a name. Raises KeyError."""
        return self._attached[name]

    def channel(self, target: str) -> grpc.aio.Channel:
        """Return the channel to `target`, one per target: deadlines, trace context and metrics are seen to."""
        channel = self._channels.get(target)
        if channel is None:
            channel = self._channels[target] = Channel(
                target,
                call_timeout=self.settings.call_timeout,
                max_message_bytes=self.settings.max_message_bytes,
                metrics=self._client_metrics,
                tracing=self._tracing,
                closed=lambda: self._forget(target),
                policies=self._followed_policies(),
                certificates=self.certificates,
            )
        return channel

    def _followed_policies(self) -> "PolicySource | None":
        path = self.settings.retry_policies
        if path is not None and self._policies is None:
            from amends_chassis.policies import PolicySource

            self._policies = PolicySource(path)
            self.background("policies", self._policies.run)
        return self._policies

    def _forget(self, target: str) -> None:
        self._channels.pop(target, None)

    @contextmanager
    def span(self, name: str, trace: str | None = None, **attributes: str) -> Iterator[None]:
        """Do the block as a span of the trace `trace` (a stored `traceparent`), or of the current one.

        Without a sampled trace, or an endpoint for spans, it costs next to nothing and only sets the trace.
        """
        place = current_trace() if trace is None else Trace.parse(trace)
        if self._tracing is not None and place is not None and place.sampled:
            with self._tracing.span(name, place, attributes):
                yield
        else:
            with in_trace(place):
                yield

    async def listen(self) -> None:
        """Open the ports and answer probes: alive, not ready. Raises OSError when a port is taken."""
        settings = self.settings
        self._server = grpc.aio.server(
            handlers=(self._routes,),
            interceptors=(self._interceptor,),
            options=server_options(settings),
        )
        self._routes.add(health_pb2_grpc.add_HealthServicer_to_server, self.health.servicer, _HEALTH)
        host = to_listen_on(settings.host)
        credentials = None if self.certificates is None else self.certificates.server_credentials()
        self.address = _open_port(self._server, host, settings.port, credentials)
        if settings.health_port is not None:
            await self._serve_health(host, settings.health_port)
        self._metrics_server = MetricsServer(self.registry, host, settings.metrics_port, lambda: self.health.ready)
        self.metrics_address = self._metrics_server.address
        await self.health.publish()
        await self._server.start()
        self._report()
        _log.info("service.listening", grpc=self.address, metrics=self.metrics_address, pid=os.getpid())

    async def _serve_health(self, host: str, port: int) -> None:
        """Serve health on a port of its own: by another server, so that no call waits before its checks."""
        self._health_server = grpc.aio.server(options=server_options(self.settings))
        health_pb2_grpc.add_HealthServicer_to_server(self.health.servicer, self._health_server)
        self.health_address = _open_port(self._health_server, host, port)
        await self._health_server.start()

    def _report(self) -> None:
        path = self.settings.report_file
        if path is None:
            return
        report = {
            "service": self.settings.name,
            "pid": os.getpid(),
            "grpc": self.address,
            "metrics": self.metrics_address,
        }
        if self.health_address:
            report["health"] = self.health_address
        for servers in (self._http_servers, self._attached):
            report |= {name: server.address for name, server in servers.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_text(json.dumps(report) + "\n", encoding="utf-8")
        draft.replace(path)

    async def start(self, assemble: "Callable[[Runtime], Awaitable[None]]") -> None:
        """Reach and migrate the database, assemble the service, and become ready."""
        if self.tokens is not None:
            self.background("issuer keys", self.tokens.keys.run)
        if self._database is not None:
            await self.health.report("database", False)
            await self.migrate()
            await self.health.report("database", True)
        await assemble(self)
        if self._events is not None:
            from amends.events.v1.events_service_pb2_grpc import add_EventsServiceServicer_to_server
            from amends_chassis.events_api import SERVICE, EventsServicer

            servicer = self.around_events(EventsServicer(self._events))
            self.add(add_EventsServiceServicer_to_server, servicer, SERVICE)
        if self._database is not None:
            self.barrier = guard.barrier(self._database.pool, self._services)
        if self.barrier is not None:
            self._interceptor.guards = (self.barrier.interceptor(),)
            self.background("barrier.expiry", self._expire_barrier)
        if self.settings.reflection:
            add_reflection(self._routes, (*self._services, _HEALTH))
        for name in self._services:
            await self.health.add(name)
        if self._access is not None and (unruled := self._access.missing(self._methods)):
            _log.warning("access.nobody", methods=unruled)
        if self._database is not None:
            self.background("database.watch", self._watch_database)
        if self.certificates is not None:
            self.background("certificates", self.certificates.watch)
        self._interceptor.open()
        await self.health.report("started", True)
        _log.info("service.started", services=self._services)

    async def migrate(self) -> None:
        """Wait for the database and bring its schema up to date. Raises LookupError, MigrationError."""
        database, package = self.database, _migrations(self.settings)
        owner = _owner(self.settings)
        while True:
            await database.connect()
            if package is None:
                return
            try:
                if owner is None:
                    await migrate(database, package)
                else:
                    await migrate(owner, package, serving=await database.pool.fetchval("SELECT current_user"))
                return
            except Exception as error:
                if not database_away(error) and not isinstance(error, OSError | TimeoutError):
                    raise
                _log.warning("database.lost_while_migrating", error=f"{type(error).__name__}: {error}")
                await asyncio.sleep(0.5)

    async def _watch_database(self) -> None:
        await self.database.watch(lambda holds: self.health.report("database", holds))

    async def _expire_barrier(self) -> None:
        assert self.barrier is not None
        while True:
            removed = await self.barrier.expire(self.settings.barrier_retention, 1000)
            if removed:
                _log.info("barrier.expired", rows=removed)
            if removed < 1000:
                await asyncio.sleep(_EXPIRE_EVERY.total_seconds())

    async def stop(self) -> None:
        """Drain: say not ready, let calls in flight finish within `settings.drain`, then undo everything else."""
        if self.draining.is_set():
            return
        self.draining.set()
        _log.info("service.draining", within=self.settings.drain.total_seconds())
        await self.health.report("started", False)
        if self._server is not None:
            await asyncio.sleep(_HEARD_WITHIN.total_seconds())
            self._interceptor.end_streams()
            drain = self.settings.drain
            attached = (server.stop(drain) for server in self._attached.values())
            await asyncio.gather(self._server.stop(drain.total_seconds()), *attached)
        if self.barrier is not None:
            await self.barrier.drain()
        await self._cancel_background()
        if self._events is not None:
            await self._events.close()
        for channel in list(self._channels.values()):
            await channel.close()
        if self._database is not None:
            await self._database.close()
        if self._health_server is not None:
            await self._health_server.stop(None)
        for server in (self._metrics_server, *self._http_servers.values()):
            if server is not None:
                await asyncio.to_thread(server.close)
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)
        _log.info("service.stopped")

    async def _cancel_background(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            _, stuck = await asyncio.wait(self._tasks.values(), timeout=_CANCEL_WITHIN.total_seconds())
            for task in stuck:
                _log.error("background.stuck", task=task.get_name())


def _open_port(server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials | None = None) -> str:
    """Open a port of a server, in plain text without `credentials`; return its address. Raises OSError."""
    place = address(host, port)
    try:
        opened = server.add_secure_port(place, credentials) if credentials else server.add_insecure_port(place)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {place}: {why_not(host, port)}") from error
    return address(host, opened)


async def _supervise(name: str, run: BackgroundWork) -> None:
    loop = asyncio.get_running_loop()
    failures = 0
    while True:
        began = loop.time()
        try:
            await run()
            return
        except Exception:
            if loop.time() - began >= _STEADY.total_seconds():
                failures = 0
            failures += 1
            pause = _RESTART.delay(failures, random.random)
            _log.exception("background.failed", task=name, failures=failures, again_in=pause.total_seconds())
            await asyncio.sleep(pause.total_seconds())


def _database(settings: ServiceSettings) -> Database | None:
    if settings.database_url is None:
        return None
    return Database(settings.database_url.get_secret_value, application=settings.name, size=settings.database_pool)


def _owner(settings: ServiceSettings) -> Database | None:
    """Return the database under the role that owns its tables, when that is another than the one that serves."""
    url = settings.migrations_database_url
    return None if url is None else Database(url.get_secret_value, application=f"{settings.name} migrations")


def _tracing(settings: ServiceSettings) -> "Tracing | None":
    if settings.otlp_endpoint is None:
        return None
    from amends_chassis.tracing import Tracing  # the SDK costs 30 MB

    return Tracing.to_endpoint(settings.name, settings.otlp_endpoint)


def _certificates(settings: ServiceSettings, registry: CollectorRegistry) -> "Certificates | None":
    if settings.tls_dir is None:
        return None
    from amends_chassis.certificates import Certificates

    return Certificates.shown_in(registry, settings.tls_dir)


def _access(settings: ServiceSettings) -> "Access | None":
    if settings.access is None:
        return None
    from amends_chassis.access import Access
    from amends_chassis.followed import RulesError

    if settings.tls_dir is None:
        raise RulesError("AMENDS_ACCESS names callers by their certificates, so it needs AMENDS_TLS_DIR too")
    return Access(settings.access)


def _tokens(settings: ServiceSettings, registry: CollectorRegistry) -> "TokenVerifier | None":
    if settings.token_issuer is None:
        return None
    from amends_chassis.issuer import IssuerKeys
    from amends_chassis.tokens import TokenVerifier  # signatures take cryptography, which many a service has no use for

    if settings.token_audience is None:
        raise ValueError("AMENDS_TOKEN_ISSUER needs AMENDS_TOKEN_AUDIENCE: a token for anybody is for nobody")
    url = settings.token_keys_url or f"{settings.token_issuer.rstrip('/')}/.well-known/jwks.json"
    keys = IssuerKeys(url, registry, settings.token_keys_file)
    return TokenVerifier(settings.token_issuer, settings.token_audience, keys, registry)


def _people(settings: ServiceSettings, tokens: "TokenVerifier | None") -> "PeopleAccess | None":
    if tokens is None:
        return None
    from amends_chassis.people import PeopleAccess

    return PeopleAccess(tokens, required=settings.token_required)


def _migrations(settings: ServiceSettings) -> str | None:
    if settings.migrations is not None:
        return settings.migrations
    package = f"{type(settings).__module__.partition('.')[0]}.migrations"
    found = importlib.util.find_spec(package)
    return package if found is not None and found.submodule_search_locations is not None else None


@asynccontextmanager
async def running(
    settings: ServiceSettings,
    assemble: Callable[[Runtime], Awaitable[None]],
    tracing: "Tracing | None" = None,
) -> AsyncIterator[Runtime]:
    """Run a service for the duration of the block, in this event loop, with a metrics registry of its own."""
    runtime = Runtime(settings, CollectorRegistry(), tracing)
    try:
        await runtime.listen()
        await runtime.start(assemble)
        yield runtime
    finally:
        await runtime.stop()


def run(settings: ServiceSettings, assemble: Callable[[Runtime], Awaitable[None]]) -> None:
    """Run a service until SIGTERM or SIGINT; a second signal ends it at once. Exits with 1 when it cannot start.

    With the argument `migrate` it only waits for its database, brings the schema up to date, and exits: what an
    init container does before this version serves.
    """
    logs.configure(settings.name, settings.log_level, settings.log_format)
    if sys.argv[1:] == [MIGRATE]:
        sys.exit(uvloop.run(_live(settings, _migrate)))
    if sys.argv[1:]:
        sys.exit(f"{settings.name} takes no argument but {MIGRATE}; everything else is set by AMENDS_ variables")
    disable_created_metrics()  # type: ignore[no-untyped-call] # a second series beside each of ours, which nobody reads
    sys.exit(uvloop.run(_live(settings, partial(_serve, assemble))))


async def _migrate(runtime: Runtime, stopping: asyncio.Event) -> None:
    if not await _until(stopping, runtime.migrate()):
        raise InterruptedError("the process was stopped before the schema was up to date")


async def _serve(assemble: Callable[[Runtime], Awaitable[None]], runtime: Runtime, stopping: asyncio.Event) -> None:
    await runtime.listen()
    if await _until(stopping, runtime.start(assemble)):
        gc.collect()
        gc.freeze()  # the objects of the start live as long as the process: no collection need look at them again
        await stopping.wait()


async def _until(stopping: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work, or give it up when the process is to stop; return whether it was done."""
    working, waiting = asyncio.create_task(work), asyncio.create_task(stopping.wait())
    await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    done = working.done()
    if done:
        working.result()
    working.cancel()
    waiting.cancel()
    await asyncio.wait({working, waiting})
    return done


async def _live(settings: ServiceSettings, live: Callable[[Runtime, asyncio.Event], Awaitable[None]]) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def signalled(number: signal.Signals) -> None:
        _log.info("service.signalled", signal=number.name)
        if stopping.is_set():
            os._exit(130)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled, number)
    runtime = Runtime(settings)
    try:
        await live(runtime, stopping)
    except (OSError, MigrationError, LookupError, ValueError) as error:
        _log.critical("service.cannot_start", error=f"{type(error).__name__}: {error}")
        return 1
    except Exception:
        _log.critical("service.cannot_start", exc_info=True)
        return 1
    finally:
        await runtime.stop()
    return 0
