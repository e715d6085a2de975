"""The load generator, a process of its own: reads orders to work from standard input, answers with what it measured.

One line of JSON in, one out. A loop of workers, each with one request under way: `in_flight` requests at any time. A
saga counts when it is COMPLETED, nothing else does. Started by `generator`.
"""

import asyncio
import gc
import itertools
import json
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio
from amends_chassis.certificates import Certificates
from amends_chassis.dial import dial

from amends.saga.v1 import run_pb2, run_service_pb2
from amends.saga.v1.run_service_pb2_grpc import RunServiceStub
from shop.catalog.v1 import catalog_pb2
from shop.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from shop.inventory.v1 import inventory_pb2
from shop.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from shop.orders.v1 import orders_pb2
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shop.search.v1 import search_pb2
from shop.search.v1.search_pb2_grpc import SearchServiceStub
from shop.types.v1 import types_pb2

CALL_SECONDS = 30.0
LINES = [types_pb2.Line(sku="tea-assam", quantity=2), types_pb2.Line(sku="mug-blue", quantity=1)]
ADDRESS = types_pb2.Address(
    recipient="Ada Lovelace", street="Rosenweg 3", city="Berlin", postal_code="10115", country="DE"
)

One = Callable[[str], Awaitable[bool]]
"""Does one thing under a key that is used once; says whether it was completed."""


def saga(channel: grpc.aio.Channel, padding: int) -> One:
    """Start a run and wait for its end. Its input is `padding` bytes larger than an order is."""
    stub: Any = RunServiceStub(channel)
    address = types_pb2.Address()
    address.CopyFrom(ADDRESS)
    address.street += "x" * padding

    async def one(key: str) -> bool:
        data = orders_pb2.PlaceOrderInput(
            order_id=key,
            customer_id="ada",
            lines=LINES,
            total=types_pb2.Money(currency="EUR", minor=4200),
            card_token="tok_visa",
            address=address,
        )
        request = run_service_pb2.StartRunRequest(
            namespace="bench", saga="place-order", idempotency_key=key, binary=data.SerializeToString(), wait=True
        )
        answer = await stub.StartRun(request, timeout=CALL_SECONDS)
        return bool(answer.run.state == run_pb2.RUN_STATE_COMPLETED)

    return one


def bare(channel: grpc.aio.Channel, padding: int) -> One:
    """Ask the front, which calls the participants."""
    stub: Any = OrderServiceStub(channel)

    async def one(key: str) -> bool:
        request = orders_pb2.PlaceOrderRequest(
            order_id=key, customer_id="ada", lines=LINES, card_token="tok_visa", address=ADDRESS
        )
        await stub.PlaceOrder(request, timeout=CALL_SECONDS)
        return True

    return one


def echo(channel: grpc.aio.Channel, padding: int) -> One:
    """Call a handler that does nothing."""
    stub: Any = InventoryServiceStub(channel)
    request = inventory_pb2.GetStockRequest(sku="tea-assam")

    async def one(key: str) -> bool:
        await stub.GetStock(request, timeout=CALL_SECONDS)
        return True

    return one


def article(channel: grpc.aio.Channel, padding: int) -> One:
    """Read one article of the catalogue after the other."""
    stub: Any = CatalogServiceStub(channel)
    numbers = itertools.count()

    async def one(key: str) -> bool:
        answer = await stub.GetArticle(
            catalog_pb2.GetArticleRequest(sku=f"a-{next(numbers) % 500}"), timeout=CALL_SECONDS
        )
        return bool(answer.article.name)

    return one


def search(channel: grpc.aio.Channel, padding: int) -> One:
    """Search for one word after the other, of those that `searching` has written."""
    stub: Any = SearchServiceStub(channel)
    queries = itertools.cycle(("assam", "darjeeling 77", "sencha", "mint tin", "rooibos 9", "bergamot", "gift"))

    async def one(key: str) -> bool:
        await stub.Search(search_pb2.SearchRequest(query=next(queries)), timeout=CALL_SECONDS)
        return True

    return one


SIDES = {"saga": saga, "bare": bare, "echo": echo, "article": article, "search": search}


class Generator:
    """Channels that stay open between rounds, and the work over them."""

    def __init__(self) -> None:
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def work(self, order: dict[str, Any]) -> dict[str, Any]:
        """One round. `order`: side, targets, in_flight, seconds, padding (bytes), certificates (a folder or empty)."""
        channels = [self._channel(target, order["certificates"]) for target in order["targets"]]
        made = [SIDES[order["side"]](channel, order["padding"]) for channel in channels]
        prefix, count = uuid.uuid4().hex, itertools.count()
        times: list[float] = []
        ends: list[float] = []
        failures: list[str] = []
        began = time.perf_counter()
        until = began + order["seconds"]

        async def worker(one: One) -> None:
            while (now := time.perf_counter()) < until:
                try:
                    if await one(f"{prefix}-{next(count)}"):
                        ends.append(time.perf_counter() - began)
                        times.append(ends[-1] + began - now)
                    else:
                        failures.append("not completed")
                except grpc.aio.AioRpcError as error:
                    failures.append(error.code().name)
                    await asyncio.sleep(0.01)

        workers = [worker(made[number % len(made)]) for number in range(order["in_flight"])]
        await asyncio.gather(*workers)
        took = time.perf_counter() - began
        said: dict[str, Any] = {"done": len(times), "seconds": took, "rate": len(times) / took, "failed": len(failures)}
        said["failures"] = sorted(set(failures))
        if order.get("ends"):
            said["ends"] = [round(end, 3) for end in ends]
        return said | _percentiles(times)

    def _channel(self, target: str, certificates: str) -> grpc.aio.Channel:
        if target not in self._channels:
            found = Certificates(Path(certificates)) if certificates else None
            self._channels[target] = dial(target, certificates=found)
        return self._channels[target]

    async def close(self) -> None:
        """Close all channels of the load."""
        for channel in self._channels.values():
            await channel.close()


def _percentiles(times: list[float]) -> dict[str, float]:
    if not times:
        return {"p50": 0.0, "p99": 0.0}
    times.sort()
    return {"p50": times[len(times) // 2], "p99": times[min(len(times) - 1, len(times) * 99 // 100)]}


async def main() -> None:
    """Answer lines until the input ends."""
    generator = Generator()
    gc.collect()
    gc.freeze()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        answer = await generator.work(json.loads(line))
        print(json.dumps(answer), flush=True)
    await generator.close()


if __name__ == "__main__":
    asyncio.run(main())
