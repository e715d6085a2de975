"""The story of the report: it adds up to the ledger, and is built anew while it answers. The last of `make demo`."""

import asyncio
import os
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from amends_chassis.dial import dial
from rich import box
from rich.table import Table

from amends_demo.laws import money
from amends_demo.shop import CALL, Shop
from amends_demo.stack import Stack
from amends_demo.telling import Telling
from shop.payments.v1 import payments_pb2
from shop.reporting.v1 import reporting_pb2
from shop.reporting.v1.reporting_pb2_grpc import ReportingServiceStub
from shop.types.v1 import types_pb2

if TYPE_CHECKING:
    from shop.reporting.v1.reporting_pb2_grpc import ReportingServiceAsyncStub

FRESH_WITHIN = timedelta(seconds=20)
NAMES = {
    types_pb2.FULFILMENT_ORCHESTRATED: "by a saga",
    types_pb2.FULFILMENT_CHOREOGRAPHED: "by events",
}
STEPS = ("placed", "reserved", "paid", "booked", "confirmed", "rejected", "dispatched")


async def the_report_adds_up(stack: Stack, shop: Shop, telling: Telling) -> None:
    """Tell what the report says of everything before, compare it with the ledger, and build it anew."""
    telling.title("The report adds up to the ledger", "made of events alone, and built anew while it answers")
    async with dial(stack.address("reporting"), certificates=stack.certificates) as channel:
        report: ReportingServiceAsyncStub = ReportingServiceStub(channel)
        sales, as_of = await _fresh(report)
        telling.console.print(await _funnel(report))
        for reason, orders in sorted((await _undone(report)).items()):
            telling.say(f"  {orders} orders were not fulfilled: {reason}")
        held = await _ledger(shop)
        said = ", ".join(money(amount) for amount in sorted(sales.items()))
        telling.claim(f"what was taken less what was paid back is what the ledger holds: {said}", sales == held, held)
        code, output = await _rebuild(stack)
        telling.say("  $ python -m shop_reporting rebuild")
        for line in output.splitlines():
            telling.say(f"  {line}")
        again, _ = await _fresh(report, since=as_of)
        telling.claim("a report that is built anew says the same", code == 0 and again == sales, (code, again))


async def _fresh(report: "ReportingServiceAsyncStub", since: datetime | None = None) -> tuple[dict[str, int], datetime]:
    """Return what was taken less what was paid back by currency, once everything that was published is in it."""
    wanted = since or datetime.now(UTC)
    end = asyncio.get_running_loop().time() + FRESH_WITHIN.total_seconds()
    while True:
        answer = await report.ListSales(reporting_pb2.ListSalesRequest(), timeout=CALL)
        if answer.HasField("as_of") and answer.as_of.ToDatetime(UTC) > wanted:
            break
        if asyncio.get_running_loop().time() > end:
            raise TimeoutError(f"the report is as of {answer.as_of.ToJsonString()}")
        await asyncio.sleep(0.1)
    sums: Counter[str] = Counter()
    for one in answer.sales:
        sums[one.currency] += one.taken_minor - one.refunded_minor
    return dict(sums), answer.as_of.ToDatetime(UTC)


async def _funnel(report: "ReportingServiceAsyncStub") -> Table:
    answer = await report.GetFunnel(reporting_pb2.GetFunnelRequest(), timeout=CALL)
    table = Table(box=box.SIMPLE)
    table.add_column("orders")
    for step in STEPS:
        table.add_column(step, justify="right")
    for funnel in answer.funnels:
        table.add_row(NAMES[funnel.fulfilment], *(str(getattr(funnel, step)) for step in STEPS))
    return table


async def _undone(report: "ReportingServiceAsyncStub") -> Counter[str]:
    answer = await report.ListUndone(reporting_pb2.ListUndoneRequest(), timeout=CALL)
    found: Counter[str] = Counter()
    for one in answer.undone:
        found[one.reason or "no reason was given"] += one.orders
    return found


async def _ledger(shop: Shop) -> dict[str, int]:
    answer: Any = await shop.payments.ListBalances(payments_pb2.ListBalancesRequest(), timeout=CALL)
    return {one.balance.currency: one.balance.minor for one in answer.balances if one.account == "merchant"}


async def _rebuild(stack: Stack) -> tuple[int, str]:
    """Build the report anew, as a person does; return the exit code and what was printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "shop_reporting", "rebuild"),
        env=os.environ | stack.environment("reporting"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode(errors="replace")
