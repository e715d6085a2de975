"""The same order by events and by its saga, one at a time, in the shop as `make demo` runs it.

How long a customer waits for the end of each, and what each costs: calls that services answer, events, and processor
time of all services and the orchestrators.
"""

import itertools
import re
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import Any

from amends_demo import manifests
from amends_demo.place import ShopFolder
from amends_demo.shop import NAMESPACE, Shop, visiting
from amends_demo.stack import MODULES, SERVICES, Stack, running
from rich.progress import Progress

from amends_bench.suite import Comparison, SuiteOptions, alternate
from amends_bench.verify import WrongTotalsError
from amends_bench.world import used
from shop.orders.v1.orders_pb2 import ORDER_STATE_CONFIRMED
from shop.types.v1 import types_pb2

BY_EVENTS, BY_SAGA = types_pb2.FULFILMENT_CHOREOGRAPHED, types_pb2.FULFILMENT_ORCHESTRATED
SUBJECT, PEER = "an order by events", "the same order by its saga"
CALLS = re.compile(r'^grpc_server_handled_total\{[^}]*service="((?:shop|amends)\.[^"]+)"[^}]*\} (\S+)$', re.MULTILINE)
EVENTS = re.compile(r"^outbox_published_total\{[^}]*\} (\S+)$", re.MULTILINE)
_numbers = itertools.count(1)


async def choreographed_vs_orchestrated(options: SuiteOptions, progress: Progress) -> list[Comparison]:
    """Compare how long a customer waits for an order, and what an order costs."""
    waits = Comparison("choreographed-vs-orchestrated", SUBJECT, PEER, "ms, p50", 6.0, at_most=True, key="p50")
    others = [
        Comparison(f"choreographed-vs-orchestrated {name}", SUBJECT, PEER, unit, None, key=name)
        for name, unit in (
            ("p99", "ms, p99"),
            ("calls", "calls answered, per order"),
            ("events", "events published, per order"),
            ("processor", "ms of processor, per order"),
        )
    ]
    async with _open_shop() as market:
        for fulfilment in (BY_EVENTS, BY_SAGA):
            await market.round(fulfilment, options.warm_up)
        await alternate(
            waits,
            lambda: market.round(BY_EVENTS, options.duration),
            lambda: market.round(BY_SAGA, options.duration),
            options.rounds,
            progress,
        )
    for other in others:
        other.subject_rounds, other.peer_rounds = waits.subject_rounds, waits.peer_rounds
    return [waits, *others]


@dataclass(frozen=True, slots=True)
class _Market:
    stack: Stack
    shop: Shop

    async def round(self, fulfilment: types_pb2.Fulfilment.ValueType, duration: timedelta) -> Mapping[str, Any]:
        """Place one order after the other for a while, each once the one before has ended."""
        calls, events, processor = self._calls(), self._events(), self._processor()
        waited: list[float] = []
        end = time.perf_counter() + duration.total_seconds()
        while time.perf_counter() < end or len(waited) < 2:
            began = time.perf_counter()
            order = await self.shop.place(f"bench-{next(_numbers)}", fulfilment=fulfilment)
            waited.append((time.perf_counter() - began) * 1000)
            if order.state != ORDER_STATE_CONFIRMED:
                raise WrongTotalsError(f"order {order.order_id} is not confirmed: {order.reason}")
        cuts = quantiles(waited, n=100, method="inclusive")
        return {
            "orders": len(waited),
            "p50": cuts[49],
            "p99": cuts[98],
            "calls": (self._calls() - calls) / len(waited),
            "events": (self._events() - events) / len(waited),
            "processor": (self._processor() - processor) * 1000 / len(waited),
        }

    def _calls(self) -> float:
        """Return how many calls of the shop's and of Amends' own services were answered."""
        return sum(float(calls) for name in MODULES for _, calls in CALLS.findall(self._metrics(name)))

    def _events(self) -> float:
        return sum(float(events) for name in MODULES for events in EVENTS.findall(self._metrics(name)))

    def _metrics(self, name: str) -> str:
        with urllib.request.urlopen(f"http://{self.stack.reports[name]['metrics']}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    def _processor(self) -> float:
        """Return the processor time, in seconds, that all services and the orchestrators have used."""
        return used(self.stack.child(name).pid for name in MODULES)


@asynccontextmanager
async def _open_shop() -> AsyncIterator[_Market]:
    """Run a stocked shop for a block, in which no parcel has to be packed."""
    with TemporaryDirectory(prefix="amends-bench-") as folder:
        place = ShopFolder(Path(folder))
        with place.held():
            async with running(place) as stack:
                await stack.child("shipping").terminate()
                await stack.start_one("shipping", {"AMENDS_HANDLING_TIME": "0s"})
                async with visiting(stack) as shop:
                    targets = {service: stack.address(name) for name, service in SERVICES.items()}
                    await manifests.apply(shop.definitions, targets, NAMESPACE)
                    await shop.stock_up()
                    yield _Market(stack, shop)
