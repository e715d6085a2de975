"""The shop as a whole, as `make` starts it: all stories hold, and what `up` leaves running is stopped by `down`."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from amends_embedded import Child
from amends_testkit.waiting import eventually

from shop.orders.v1 import orders_pb2
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub

pytestmark = pytest.mark.slow  # each starts the whole shop

ROOT = Path(__file__).parents[2]


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


def wanted(order_id: str, card_token: str = "tok_visa") -> orders_pb2.PlaceOrderRequest:
    address = {"recipient": "Me", "street": "Rosenweg 3", "city": "Berlin", "postal_code": "10115", "country": "DE"}
    return orders_pb2.PlaceOrderRequest(
        order_id=order_id,
        customer_id="me",
        lines=[{"sku": "mug-blue", "quantity": 1}],
        card_token=card_token,
        address=address,
    )


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
            request = wanted("o-1")
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
            os.kill(processes["nats"]["pid"], 9)

            async def back() -> bool:
                now = json.loads((place / "state.json").read_text())["processes"]["postgres"]
                assert now["address"] == processes["postgres"]["address"]
                return now["pid"] not in (0, processes["postgres"]["pid"]) and await serves(orders, request)

            def published() -> bool:
                now = json.loads((place / "state.json").read_text())["processes"]["nats"]
                return now["address"] == processes["nats"]["address"] and now["pid"] not in (
                    0,
                    processes["nats"]["pid"],
                )

            request.order_id = "o-2"
            await eventually(published, timeout=timedelta(seconds=60), what="NATS on its old port")
            await eventually(back, timeout=timedelta(seconds=60), what="Postgres on its old port, and an order")
            assert run("status", place).returncode == 0
            assert run("audit", place).returncode == 0
    finally:
        stop = Child.start("down", command("down", place), log=tmp_path / "down.log")
        assert await stop.wait(timedelta(seconds=60)) == 0, stop.tail()
    assert await eventually(lambda: leftovers(place) == [], what="the end of all processes")


def amends(place: Path, *arguments: str) -> str:
    address = (place / "address").read_text().strip()
    words = [sys.executable, "-m", "amends_cli", *arguments, "--address", address]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(200)
async def test_a_person_has_the_money_of_an_order_that_is_not_confirmed_given_back_and_the_books_hold(
    tmp_path: Path,
) -> None:
    place = tmp_path / "place"
    child = Child.start("up", command("up", place), log=tmp_path / "up.log")
    assert await child.wait(timedelta(seconds=120)) == 0, child.tail()
    try:
        text = (ROOT / "examples/place-order/saga.yaml").read_text()
        (tmp_path / "saga.yaml").write_text(text.replace("deadline: 60s", "deadline: 60s\n  stalledAfter: 1s"))
        amends(place, "apply", str(tmp_path / "saga.yaml"))
        processes = json.loads((place / "state.json").read_text())["processes"]
        async with grpc.aio.insecure_channel(processes["orders"]["address"]) as channel:
            orders = OrderServiceStub(channel)
            await orders.PlaceOrder(wanted("o-1", card_token="tok_slow"), timeout=20)
            os.kill(processes["orders"]["pid"], signal.SIGSTOP)  # while the card takes its time

            def stalls() -> Any:
                run = json.loads(amends(place, "get", "-n", "shop", "--key", "o-1", "-o", "json"))
                return run if run.get("stalled", {}).get("step") == "confirm" else None

            stalled = await eventually(partial(asyncio.to_thread, stalls), timeout=timedelta(seconds=30))
            run_id = stalled["runId"]
            amends(place, "resolve", run_id, "park", "--reason", "the orders are away")
            amends(place, "resolve", run_id, "amend", "refund", "--reason", "the customer wants the money back")
            os.kill(processes["orders"]["pid"], signal.SIGCONT)

            async def refunded() -> Any:
                order = (await orders.GetOrder(orders_pb2.GetOrderRequest(order_id="o-1"), timeout=20)).order
                return order if order.state == orders_pb2.ORDER_STATE_REFUNDED else None

            order = await eventually(refunded, timeout=timedelta(seconds=60), what="the order is refunded")
            assert "the money went back" in order.attention
        books = await asyncio.to_thread(run, "audit", place)
        assert books.returncode == 0, books.stdout
        assert "1 refunded" in books.stdout
    finally:
        stop = Child.start("down", command("down", place), log=tmp_path / "down.log")
        assert await stop.wait(timedelta(seconds=60)) == 0, stop.tail()
