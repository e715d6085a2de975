"""A shop whose calls are all mutual TLS: no port lets anybody else in, and certificates change while orders come."""

import asyncio
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from amends_demo import manifests
from amends_demo.identities import PERSON
from amends_demo.place import ShopFolder
from amends_demo.shop import NAMESPACE, Shop, visiting
from amends_demo.stack import MODULES, SERVICES, Stack, running
from amends_testkit.waiting import eventually
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from shop.orders.v1 import orders_pb2


def amends(stack: Stack, *arguments: str, tls: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "AMENDS_TLS_DIR"}
    return subprocess.run(
        [sys.executable, "-m", "amends_cli", *arguments, "--address", stack.address("orchestrator-1")],
        env=environment | (stack.for_people() if tls else {}),
        capture_output=True,
        text=True,
        check=False,
    )


def renewed(log: Path) -> bool:
    return "certificates.renewed" in log.read_text()


async def refused(stack: Stack) -> list[str]:
    """Return the processes that a caller in plain text is not served by."""
    found = []
    for name in MODULES:
        async with grpc.aio.insecure_channel(stack.address(name)) as channel:
            try:
                health: Any = HealthStub(channel)
                await health.Check(HealthCheckRequest(), timeout=5)
            except grpc.aio.AioRpcError:
                found.append(name)
    return found


async def orders(shop: Shop, stop: asyncio.Event) -> list[orders_pb2.Order]:
    """ShopFolder one order after the other until it is enough; a failed one raises."""
    made: list[orders_pb2.Order] = []
    while not stop.is_set():
        made.append(await shop.place(f"tls-{len(made)}"))
    return made


@pytest.mark.timeout(200)
async def test_all_calls_of_a_shop_are_mutual_tls_and_certificates_are_renewed_under_orders(tmp_path: Path) -> None:
    place = ShopFolder(tmp_path / "place")
    with place.held():
        async with running(place, tls=True) as stack, visiting(stack) as shop:
            targets = {service: stack.address(name) for name, service in SERVICES.items()}
            await manifests.apply(shop.definitions, targets, NAMESPACE)
            await shop.stock_up()
            assert await refused(stack) == list(MODULES)

            stop = asyncio.Event()
            placing = asyncio.create_task(orders(shop, stop))
            assert stack.identities is not None
            before = {name: child.pid for name, child in stack.children.running.items()}
            for name in (*MODULES, PERSON):
                stack.identities.renew(name)
            for name in MODULES:
                log = place.logs / f"{name}.log"
                await eventually(partial(renewed, log), what=f"{name} renewed")
            stop.set()
            made = await placing
            assert {order.state for order in made} == {orders_pb2.ORDER_STATE_CONFIRMED}
            assert {name: child.pid for name, child in stack.children.running.items()} == before

            listed = await asyncio.to_thread(
                amends, stack, "list", "--namespace", NAMESPACE, "-o", "name", "--limit", "10000"
            )
            assert (listed.returncode, len(listed.stdout.split())) == (0, len(made)), listed.stderr
            stranger = await asyncio.to_thread(amends, stack, "list", tls=False)
            assert stranger.returncode == 3
            assert "AMENDS_TLS_DIR" in stranger.stderr
