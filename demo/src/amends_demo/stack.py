"""The processes of the shop: Postgres, NATS, two replicas of the orchestrator, the monitor, and the services.

Called by the commands `demo` and `up`, and by tests, which can do without the services that no order waits for. With
these run the gateway, the caches of catalog and customers, and a mail server that delivers nothing and shows what
customers were written. Every service but the gateway gets a database of its own and two roles: one owns the tables and
migrates them, the other serves; nobody knows another's password. All listen on free ports of 127.0.0.1, or on
AMENDS_PORT_<NAME>, and report what they got.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from amends_chassis.certificates import Certificates
from amends_chassis.dial import dial
from amends_embedded import Child, ChildDiedError, Children, Nats, Postgres, Valkey
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from amends_demo.identities import PERSON, Identities
from amends_demo.place import ShopFolder

REPLICAS = ("orchestrator-1", "orchestrator-2")
PARTICIPANTS = ("inventory", "payments", "shipping")
READERS = ("reporting",)
"""Services that no saga calls."""
SEARCH = "search"
"""One of MORE that reads what others tell, and is told where they are. It can be rebuilt beside itself."""
GATEWAY = "gateway"
"""The only one that faces the outside. It has no database, and runs where those of MORE do."""
NEIGHBOURS = {
    "orders": PARTICIPANTS,
    "reporting": ("orders", *PARTICIPANTS),
    GATEWAY: ("catalog", "customers", "identity", "inventory", "marketing", "notifications", "orders", SEARCH),
    SEARCH: ("catalog", "inventory"),
}
"""Who is told where which others are, beside the orchestrator."""
MODULES = {
    **dict.fromkeys(REPLICAS, "amends_orchestrator"),
    "inventory": "shop_inventory",
    "orders": "shop_orders",
    "payments": "shop_payments",
    "reporting": "shop_reporting",
    "shipping": "shop_shipping",
    "monitor": "amends_monitor",
}
MORE = {
    "catalog": "shop_catalog",
    "customers": "shop_customers",
    "identity": "shop_identity",
    "marketing": "shop_marketing",
    "notifications": "shop_notifications",
    SEARCH: "shop_search",
}
"""Services that no order waits for."""
ISSUER = "http://identity.shop.svc.cluster.local:8080"
"""Who gives out access tokens, by the name that identity has by default."""
BELIEVERS = ("catalog", "customers", "marketing", "notifications", "orders", GATEWAY)
"""Who believes the access tokens of identity, and so starts after it. Calls without a token are served, too: stories
and people with `grpcurl` make them."""
CACHED = ("catalog", "customers")
"""Services that have a cache of their own."""
MAIL_CATCHER = "mail-catcher"
SERVICES = {
    "inventory": "shop.inventory.v1.InventoryService",
    "orders": "shop.orders.v1.OrderService",
    "payments": "shop.payments.v1.PaymentService",
    "shipping": "shop.shipping.v1.ShippingService",
}
TOLD = {
    **{replica: {"AMENDS_TARGETS": "loopback", "AMENDS_LEASE": "5s"} for replica in REPLICAS},
    "monitor": {"AMENDS_GRACE": "0s"},  # one machine, one clock
    **{name: {"AMENDS_DATABASE_POOL": "4"} for name in MORE},
    "shipping": {"AMENDS_HANDLING_TIME": "40ms"},  # packing a parcel takes a while: the slow one of the four
}
PASSED_ON = ("AMENDS_PORT_", "AMENDS_LOG_", "AMENDS_OTLP_", "AMENDS_TRACE_")
READY = timedelta(seconds=60)
CONNECTIONS, FEW_CONNECTIONS, OWNERS_CONNECTIONS = 23, 8, 3
"""Of each role that serves, of those of MORE but SEARCH, and of each that owns: eight of the first, five of the second
and all owners share the 280 of the server, and none can leave the others without."""


@dataclass
class Stack:
    """The running shop. Make it with `running`."""

    place: ShopFolder
    postgres: Postgres
    nats: Nats
    children: Children
    identities: Identities | None = None
    """The certificates with which everything is mutual TLS; None: plain text."""
    events: bool = True
    """Whether events are given to the broker, and reporting reads them; else they wait in the outboxes."""
    whole: bool = False
    """Whether the services that no order waits for run, too."""
    webhooks: Path | None = None
    """The file that says whom the orchestrators tell; None: the broker alone."""
    caches: Mapping[str, Valkey] = field(default_factory=dict)
    """The cache of each of CACHED, when these run."""
    databases: dict[str, str] = field(default_factory=dict)
    """Database URLs by name: orchestrator, monitor, orders, inventory, payments, shipping, reporting."""
    owners: dict[str, str] = field(default_factory=dict)
    """The same under the roles that own the tables: only migrations use these."""
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What each process reported, by name."""

    @cached_property
    def certificates(self) -> Certificates | None:
        """Return the certificates of people who look at the shop; None: plain text."""
        return None if self.identities is None else self.identities.of_person()

    def for_people(self) -> dict[str, str]:
        """Return the environment variables that `amends` needs to reach this shop."""
        return {} if self.identities is None else {"AMENDS_TLS_DIR": str(self.identities.folder(PERSON))}

    @property
    def modules(self) -> Mapping[str, str]:
        """Return the module of each service, by name."""
        core = MODULES if self.events else {name: one for name, one in MODULES.items() if name not in READERS}
        return core | MORE | {GATEWAY: "shop_gateway"} if self.whole else core

    @property
    def programs(self) -> tuple[str, ...]:
        """Return the names of all processes but Postgres and NATS."""
        return (*self.modules, MAIL_CATCHER) if self.whole else (*self.modules,)

    @property
    def inbox(self) -> str:
        """Return the address of the page that shows what customers were written."""
        return f"http://{self.reports[MAIL_CATCHER]['http']}"

    @property
    def shop(self) -> str:
        """Return the address of the shop for its customers."""
        return f"http://{self.reports[GATEWAY]['http']}"

    @property
    def orchestrator(self) -> str:
        """Return a gRPC target of all replicas: the first that answers is used."""
        return "ipv4:" + ",".join(self.address(replica) for replica in REPLICAS)

    def address(self, name: str) -> str:
        """Return host:port of a process."""
        return str(self.reports[name]["grpc"])

    async def start(self) -> None:
        """Start everything, those who are told where the others are last."""
        readers, more = READERS if self.events else (), MORE if self.whole else ()
        if more:
            await self.start_one(MAIL_CATCHER)
        for name in ("orchestrator", "monitor", "orders", *PARTICIPANTS, *readers, *more):
            owner = f"{name}_owner"
            self.owners[name] = await self.postgres.create(owner, name, connections=OWNERS_CONNECTIONS)
            connections = FEW_CONNECTIONS if name in MORE and name != SEARCH else CONNECTIONS
            self.databases[name] = await self.postgres.create(name, name, connections=connections, owner=owner)
        later = (*BELIEVERS, SEARCH)
        first = (*PARTICIPANTS, *REPLICAS, "monitor", *(name for name in more if name not in later))
        await asyncio.gather(*(self.start_one(name) for name in first))
        await asyncio.gather(*(self.start_one(name) for name in more if name in BELIEVERS))
        await asyncio.gather(*(self.start_one(name) for name in ("orders", *((SEARCH,) if more else ()))))
        await asyncio.gather(*(self.start_one(name) for name in (*readers, *((GATEWAY,) if more else ()))))

    async def start_one(self, name: str, more: Mapping[str, str] | None = None) -> None:
        """Start one process, or start it again on the port it had. Raises ChildDiedError, ReportTimeoutError."""
        if name == MAIL_CATCHER:
            await self._start_mail_catcher()
            return
        environment = self.environment(name)
        port = self._port(name, environment)
        if port is not None:
            environment["AMENDS_PORT"] = port
        child = Child.start(
            name,
            [sys.executable, "-m", self.modules[name]],
            log=self.place.logs / f"{name}.log",
            report=(written := self.place.reports / f"{name}.json"),
            environment=environment | dict(more or {}),
        )
        self.children.add(child)
        report = await child.ready(READY)
        await _serving(child, str(report["grpc"]), self.certificates)
        self.reports[name] = json.loads(written.read_text())  # what it opened after it had its database, too

    def environment(self, name: str) -> dict[str, str]:
        """Return the settings of a process, as environment variables."""
        environment = {"AMENDS_LOG_FORMAT": "console"}  # `make logs` is read by people
        environment |= {key: value for key, value in os.environ.items() if key.startswith(PASSED_ON)}
        environment |= self._data_of(name)
        environment |= TOLD.get(name, {})
        if name in REPLICAS and self.webhooks is not None:
            environment["AMENDS_WEBHOOKS"] = str(self.webhooks)
        if name == "orders":
            environment["AMENDS_ORCHESTRATOR_TARGET"] = self.orchestrator
            if self.whole:
                environment["AMENDS_CATALOG_TARGET"] = self.address("catalog")
        if name in self.caches:
            environment["AMENDS_CACHE_URL"] = self.caches[name].url
        for kind in set(self.reports.get(name, ())) & {"http", "jwks"}:
            environment[f"AMENDS_{kind.upper()}_PORT"] = str(self.reports[name][kind]).rpartition(":")[2]
        for neighbour in NEIGHBOURS.get(name, ()):
            environment[f"AMENDS_{neighbour.upper()}_TARGET"] = self.address(neighbour)
        if name in BELIEVERS and self.whole:
            environment |= self._issuer()
        if name == "identity":
            environment["AMENDS_KEY_SECRET_FILE"] = str(self.place.secret("identity"))
        if name == GATEWAY:
            environment["AMENDS_COOKIE_SECRET_FILE"] = str(self.place.secret(GATEWAY))
        if name == "notifications":
            environment["AMENDS_SMTP"] = f"smtp://{self.reports[MAIL_CATCHER]['smtp']}"
        if self.identities is not None:
            environment["AMENDS_TLS_DIR"] = str(self.identities.folder(name))
        return environment

    def _issuer(self) -> dict[str, str]:
        """Return whose access tokens are believed."""
        return {
            "AMENDS_TOKEN_ISSUER": ISSUER,
            "AMENDS_TOKEN_AUDIENCE": "shop",
            "AMENDS_TOKEN_KEYS_URL": f"http://{self.reports['identity']['jwks']}/.well-known/jwks.json",
            "AMENDS_TOKEN_REQUIRED": "false",
        }

    def _data_of(self, name: str) -> dict[str, str]:
        """Return where a process has its data, if it has any, and where its events go."""
        data = "orchestrator" if name in REPLICAS else name
        if data not in self.databases:
            return {}
        urls = {"AMENDS_DATABASE_URL": self.databases[data], "AMENDS_MIGRATIONS_DATABASE_URL": self.owners[data]}
        return urls | ({"AMENDS_BROKER": self.nats.url} if self.events else {})

    async def _start_mail_catcher(self) -> None:
        asked = {"smtp": "0", "http": os.environ.get("AMENDS_PORT_MAIL_CATCHER", "0")}
        had = self.reports.get(MAIL_CATCHER, asked)
        ports = {kind: str(had[kind]).rpartition(":")[2] for kind in asked}
        child = Child.start(
            MAIL_CATCHER,
            [sys.executable, "-m", "amends_mail_catcher"],
            log=self.place.logs / f"{MAIL_CATCHER}.log",
            report=self.place.reports / f"{MAIL_CATCHER}.json",
            environment={"AMENDS_PORT": ports["smtp"], "AMENDS_HTTP_PORT": ports["http"]},
        )
        self.children.add(child)
        self.reports[MAIL_CATCHER] = await child.ready(READY)

    def _port(self, name: str, environment: dict[str, str]) -> str | None:
        asked = environment.pop(f"AMENDS_PORT_{name.upper().replace('-', '_')}", None)
        if name in REPLICAS:  # both read AMENDS_PORT_ORCHESTRATOR, and only one can have it
            shared = environment.pop("AMENDS_PORT_ORCHESTRATOR", None)
            asked = asked or (shared if name == REPLICAS[0] else None)
        if name in self.reports:
            return self.address(name).rpartition(":")[2]
        return asked

    def child(self, name: str) -> Child:
        """Return the process of that name, running or not."""
        return self.children.running[name]

    def processes(self) -> dict[str, dict[str, Any]]:
        """Return which processes run, and where, for `status`."""
        shown: dict[str, dict[str, Any]] = {
            "postgres": {
                "pid": self.postgres.pid if self.postgres.running else 0,
                "address": f"127.0.0.1:{self.postgres.port}",
                "database": self.postgres.admin_url,
            },
            "nats": {
                "pid": self.nats.pid if self.nats.running else 0,
                "address": f"127.0.0.1:{self.nats.port}",
                "database": "",
            },
        }
        for name, cache in self.caches.items():
            shown[f"{name}-cache"] = {
                "pid": cache.child.pid,
                "address": f"127.0.0.1:{cache.port}",
                "database": "",
            }
        for name in self.modules:
            report = self.reports[name]
            shown[name] = {
                "pid": self.child(name).pid,
                "address": report["grpc"],
                "metrics": report.get("metrics", ""),
                "database": self.databases.get("orchestrator" if name in REPLICAS else name, ""),
                "service": SERVICES.get(name, ""),
            } | {
                shown_as: report[port] for shown_as, port in {"keys": "jwks", "shop": "http"}.items() if port in report
            }
        if MAIL_CATCHER in self.reports:
            shown[MAIL_CATCHER] = {
                "pid": self.child(MAIL_CATCHER).pid,
                "address": self.reports[MAIL_CATCHER]["smtp"],
                "page": self.inbox,
                "database": "",
            }
        return shown

    def say_what_runs(self, mode: str) -> None:
        """Write the state file and the orchestrator's address."""
        certificates = "" if self.identities is None else str(self.identities.folder(PERSON))
        self.place.write_state(mode, self.address(REPLICAS[0]), self.processes(), certificates)


async def _serving(child: Child, address: str, certificates: Certificates | None) -> None:
    """Wait until the database is there and migrated: a process reports earlier, as soon as it listens."""
    end = asyncio.get_running_loop().time() + READY.total_seconds()
    async with dial(address, certificates=certificates) as channel:
        health: Any = HealthStub(channel)
        while child.alive and asyncio.get_running_loop().time() < end:
            try:
                answer = await health.Check(HealthCheckRequest(service="readiness"), timeout=1, wait_for_ready=True)
                if answer.status == HealthCheckResponse.SERVING:
                    return
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise
            await asyncio.sleep(0.05)
    raise ChildDiedError(f"{child.name} does not become ready\n{child.tail()}")


@asynccontextmanager
async def running(
    place: ShopFolder,
    *,
    tls: bool = False,
    events: bool = True,
    whole: bool = False,
    webhooks: Path | None = None,
) -> AsyncIterator[Stack]:
    """Yield a started shop over a place that the caller holds, and stop everything afterwards.

    With `tls` every call in it is mutual TLS, by certificates in the place. The `whole` of it has a catalogue,
    accounts, customers and campaigns, too, and writes to customers. Without `events` nothing is published or read, and
    so nothing is done while nobody asks.
    """
    identities = Identities(place.certificates) if tls else None
    async with (
        await Postgres.start(place.root / "postgres") as postgres,
        await Nats.start(place.root / "nats") as nats,
        AsyncExitStack() as caching,
        Children(grace=timedelta(seconds=10)) as children,
    ):
        caches = {}
        for name in CACHED if whole else ():
            caches[name] = await caching.enter_async_context(Valkey(place.root / f"{name}-cache", user=name))
            await caches[name].restart()
        stack = Stack(place, postgres, nats, children, identities, events, whole, webhooks, caches)
        await stack.start()
        yield stack
