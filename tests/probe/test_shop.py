"""The shop's own services are probed as a stranger's would be, with their effects observed: all promises are shown."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from amends_chassis.database import Database
from amends_chassis.migrations import migrate
from amends_chassis.service import running
from pydantic import SecretStr
from shop_inventory.__main__ import assemble as assemble_inventory
from shop_inventory.settings import Settings as InventorySettings
from shop_payments.__main__ import assemble as assemble_payments
from shop_payments.settings import Settings as PaymentSettings

from shop.inventory.v1 import inventory_pb2
from shop.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from shop.types.v1 import types_pb2

PAYMENTS, INVENTORY = "shop.payments.v1.PaymentService", "shop.inventory.v1.InventoryService"
CHARGE = {"orderId": "${unique}", "amount": {"currency": "EUR", "minor": "900"}, "cardToken": "tok_visa"}
RESERVE = {"orderId": "${unique}", "lines": [{"sku": "tea", "quantity": 2}]}
MakeDatabase = Callable[[], Awaitable[str]]


@asynccontextmanager
async def shop_payments(url: str) -> AsyncIterator[Any]:
    settings = PaymentSettings(database_url=SecretStr(url))
    async with running(settings, partial(assemble_payments, settings)) as runtime:
        yield runtime


@asynccontextmanager
async def shop_inventory(url: str) -> AsyncIterator[Any]:
    async with running(InventorySettings(database_url=SecretStr(url)), assemble_inventory) as runtime:
        lines = [types_pb2.Line(sku="tea", quantity=1000)]
        delivery = inventory_pb2.ReceiveRequest(delivery_id="d", lines=lines)
        await InventoryServiceStub(runtime.channel(runtime.address)).Receive(delivery)
        yield runtime


@pytest.mark.parametrize(
    ("serve", "migrations", "method", "request_", "observed", "of"),
    [
        (shop_payments, "shop_payments.migrations", f"{PAYMENTS}/Charge", CHARGE, f"{PAYMENTS}/ListBalances", {}),
        (
            shop_inventory,
            "shop_inventory.migrations",
            f"{INVENTORY}/Reserve",
            RESERVE,
            f"{INVENTORY}/GetStock",
            {"sku": "tea"},
        ),
    ],
    ids=["payments", "inventory"],
)
async def test_a_service_of_the_shop_keeps_every_promise(
    make_database: MakeDatabase,
    tmp_path: Path,
    serve: Callable[[str], Any],
    migrations: str,
    method: str,
    request_: dict[str, Any],
    observed: str,
    of: dict[str, Any],
):
    (tmp_path / "request.json").write_text(json.dumps(request_))
    (tmp_path / "of.json").write_text(json.dumps(of))
    url = await make_database()
    database = Database(url)
    await database.connect()
    await migrate(database, migrations)
    await database.close()
    async with serve(url) as runtime:
        probe = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "amends_cli", "probe", runtime.address, method, "--request", "request.json"),
            *("--observe", observed, "--observe-request", "of.json", "-o", "json"),
            stdout=asyncio.subprocess.PIPE,
            cwd=tmp_path,
        )
        printed, _ = await probe.communicate()
    rows = json.loads(printed)
    assert [row for row in rows if row["result"] != "held"] == []
    assert (len(rows), probe.returncode) == (12, 0)
