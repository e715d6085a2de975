"""The last story: two hundred orders, sixteen at a time, with declined cards and a slow participant."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from statistics import quantiles

from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from amends_demo.shop import Shop
from amends_demo.telling import Telling
from shop.orders.v1 import orders_pb2

ORDERS = 200
AT_A_TIME = 16
DECLINED_EVERY = 10
COUNTRIES = ("DE", "FR")


@dataclass(slots=True)
class LoadResult:
    """The outcome of a load: how many orders ended how, and how fast."""

    states: Counter[int] = field(default_factory=Counter)
    times: list[timedelta] = field(default_factory=list)
    """From PlaceOrder to its answer, which waits for the end of the saga."""
    took: timedelta = timedelta()


async def two_hundred_orders(shop: Shop, telling: Telling) -> None:
    """Place the orders with a progress bar, then show the table."""
    declined = ORDERS // DECLINED_EVERY
    telling.title(
        f"{ORDERS} orders, {AT_A_TIME} at a time", f"{declined} cards are declined, packing a parcel takes 40 ms"
    )
    result = await _place_all(shop, telling)
    confirmed = result.states[orders_pb2.ORDER_STATE_CONFIRMED]
    rejected = result.states[orders_pb2.ORDER_STATE_REJECTED]
    telling.console.print(_table(result, confirmed, rejected))
    telling.claim(f"{ORDERS - declined} are completed", confirmed == ORDERS - declined, confirmed)
    telling.claim(f"{declined} are compensated", rejected == declined, rejected)


async def _place_all(shop: Shop, telling: Telling) -> LoadResult:
    result = LoadResult()
    numbers = iter(range(1, ORDERS + 1))
    columns = (TextColumn("  orders"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=telling.console) as progress:
        bar = progress.add_task("orders", total=ORDERS)

        async def customer() -> None:
            for number in numbers:
                card = "tok_chargeDeclined" if number % DECLINED_EVERY == 0 else "tok_mastercard"
                began = time.monotonic()
                order = await shop.place(f"load-{number}", card, country=COUNTRIES[number % len(COUNTRIES)])
                result.times.append(timedelta(seconds=time.monotonic() - began))
                result.states[order.state] += 1
                progress.advance(bar)

        began = time.monotonic()
        await asyncio.gather(*(customer() for _ in range(AT_A_TIME)))
        result.took = timedelta(seconds=time.monotonic() - began)
    return result


def _table(result: LoadResult, confirmed: int, rejected: int) -> Table:
    cuts = quantiles((taken.total_seconds() * 1000 for taken in result.times), n=100)
    table = Table(box=box.SIMPLE_HEAD)
    for title in ("completed", "compensated", "p50", "p99", "sagas per second"):
        table.add_column(title, justify="right")
    rate = len(result.times) / result.took.total_seconds()
    table.add_row(str(confirmed), str(rejected), f"{cuts[49]:.0f} ms", f"{cuts[98]:.0f} ms", f"{rate:.0f}")
    return table
