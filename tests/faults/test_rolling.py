"""The whole shop as `make up` starts it: every process is replaced in turn while customers order; the books balance."""

import asyncio
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from amends_cli import audit_databases
from amends_demo import books as shop_books
from amends_demo import laws, manifests
from amends_demo.place import ShopFolder
from amends_demo.shop import NAMESPACE, Shop, visiting
from amends_demo.stack import MODULES, REPLICAS, SERVICES, Stack, running
from amends_testkit.waiting import eventually

CUSTOMERS, AWAY = 6, (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


async def customer(shop: Shop, name: str, enough: asyncio.Event) -> int:
    """Orders one thing after the other, sending again what was not taken; returns how many."""
    count = 0
    while not enough.is_set():
        order_id = f"{name}-{count}"
        card = ("tok_visa", "tok_visa", "tok_declined")[count % 3]
        country = ("DE", "DE", "DE", "AT")[count % 4]
        while True:
            try:
                await shop.place(order_id, card, country=country, wait=False)
                break
            except grpc.aio.AioRpcError as error:
                if error.code() not in AWAY:
                    raise
                await asyncio.sleep(0.05)
        count += 1
        await asyncio.sleep(0.02)
    return count


async def replace_all(stack: Stack) -> None:
    """Stops every process in order and starts it again, one after the other."""
    for name in MODULES:
        await stack.child(name).terminate()
        await stack.start_one(name)


@pytest.mark.faults
@pytest.mark.timeout(300)
async def test_every_process_of_the_shop_is_replaced_in_turn_while_customers_order(tmp_path: Path):
    place = ShopFolder(tmp_path / "place")
    with place.held():
        async with running(place) as stack, visiting(stack) as shop:
            targets = {service: stack.address(name) for name, service in SERVICES.items()}
            await manifests.apply(shop.definitions, targets, NAMESPACE)
            await shop.stock_up()
            enough = asyncio.Event()
            crowd = asyncio.gather(*(customer(shop, f"c{number}", enough) for number in range(CUSTOMERS)))
            await replace_all(stack)
            enough.set()
            placed = sum(await crowd)
            assert placed > 50

            async def all_settled() -> Any:
                return (await shop_books.read(stack.databases)).is_settled

            await eventually(all_settled, timeout=audit_databases.CONNECT * 6, what="the last order")
            found = await shop_books.read(stack.databases)
            assert {law.name: broken for law in laws.LAWS if (broken := list(law.broken(found)))} == {}
            participants = {service: stack.databases[name] for name, service in SERVICES.items()}
            report = await audit_databases.audit(
                audit_databases.AuditRequest(stack.databases["orchestrator"], participants)
            )
            assert report.found == []
            assert report.runs == placed
            assert all(stack.child(name).alive for name in REPLICAS)
