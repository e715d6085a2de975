"""The shop as a whole, as `make` starts it: all stories hold, and what `up` leaves running is stopped by `down`."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from amends_embedded import Child
from amends_testkit.waiting import eventually

from shop.orders.v1 import orders_pb2
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub


def command(name: str, place: Path) -> list[str]:
    return [sys.executable, "-m", "amends_demo", name, "--place", str(place)]


def run(name: str, place: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(name, place), capture_output=True, text=True, timeout=150, check=False)


def leftovers(place: Path) -> list[str]:
    """Processes whose command line or working directory is of this place."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace") + os.readlink(entry / "cwd")
            report = (entry / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if int(entry.name) != os.getpid() and str(place) in words + report:
            found.append(words)
    return found


async def serves(orders: Any, request: orders_pb2.PlaceOrderRequest) -> bool:
    try:
        await orders.PlaceOrder(request, timeout=5)
    except grpc.aio.AioRpcError:
        return False
    return True


@pytest.mark.timeout(200)
def test_every_story_ends_as_it_should_and_nothing_is_left(tmp_path: Path) -> None:
    place = tmp_path / "place"
    told = run("demo", place)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "BROKEN" not in told.stdout
    assert told.stdout.count("holds") >= 30
    for state in ("COMPLETED", "COMPENSATED", "PARKED", "sagas per second"):
        assert state in told.stdout
    assert leftovers(place) == []


@pytest.mark.timeout(200)
async def test_a_shop_left_running_serves_orders_heals_itself_and_is_stopped(tmp_path: Path) -> None:
    place = tmp_path / "place"
    child = Child.start("up", command("up", place), log=tmp_path / "up.log")
    assert await child.wait(timedelta(seconds=120)) == 0, child.tail()
    try:
        processes = json.loads((place / "state.json").read_text())["processes"]
        assert (place / "address").read_text().strip() == processes["orchestrator-1"]["address"]
        async with grpc.aio.insecure_channel(processes["orders"]["address"]) as channel:
            orders = OrderServiceStub(channel)
            os.kill(processes["payments"]["pid"], 9)
            request = orders_pb2.PlaceOrderRequest(
                order_id="o-1",
                customer_id="me",
                lines=[{"sku": "mug-blue", "quantity": 1}],
                card_token="tok_visa",
                address={
                    "recipient": "Me",
                    "street": "Rosenweg 3",
                    "city": "Berlin",
                    "postal_code": "10115",
                    "country": "DE",
                },
            )
            await orders.PlaceOrder(request, timeout=20)

            async def ended() -> bool:
                order = (await orders.GetOrder(orders_pb2.GetOrderRequest(order_id="o-1"), timeout=20)).order
                return order.state in (orders_pb2.ORDER_STATE_CONFIRMED, orders_pb2.ORDER_STATE_REJECTED)

            await eventually(ended, timeout=timedelta(seconds=60), what="the end of the order")

            def healed() -> bool:
                now = json.loads((place / "state.json").read_text())["processes"]["payments"]
                same = now["address"] == processes["payments"]["address"]
                return same and now["pid"] != processes["payments"]["pid"]

            await eventually(healed, timeout=timedelta(seconds=60), what="payments on its old port")
            os.kill(processes["postgres"]["pid"], 9)

            async def back() -> bool:
                now = json.loads((place / "state.json").read_text())["processes"]["postgres"]
                assert now["address"] == processes["postgres"]["address"]
                return now["pid"] not in (0, processes["postgres"]["pid"]) and await serves(orders, request)

            request.order_id = "o-2"
            await eventually(back, timeout=timedelta(seconds=60), what="Postgres on its old port, and an order")
            assert run("status", place).returncode == 0
            assert run("audit", place).returncode == 0
    finally:
        stop = Child.start("down", command("down", place), log=tmp_path / "down.log")
        assert await stop.wait(timedelta(seconds=60)) == 0, stop.tail()
    assert await eventually(lambda: leftovers(place) == [], what="the end of all processes")
