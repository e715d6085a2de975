"""Proves from the databases themselves that money and stock add up. Called after the stories.

No service is asked: each database is read with its own credentials, and what they say must agree with each other.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg

from amends_demo.telling import Telling

COMPLETED, COMPENSATED = 4, 5
"""amends.saga.v1.RunState as the orchestrator stores it."""


@dataclass(frozen=True, slots=True)
class Books:
    """What the five databases say."""

    orders: dict[str, str]
    """Order to state: pending, confirmed, rejected."""
    totals: dict[str, int]
    """Order to total in minor units."""
    pieces: Counter[str]
    """Article to pieces, over all confirmed orders."""
    unbalanced_entries: int
    entries: dict[str, list[str]]
    """Order to its ledger entries (charge, refund), in order."""
    merchant: int
    """What the merchant's account holds, minor units."""
    ledger: int
    """The sum over all accounts."""
    stock: list[dict[str, Any]]
    """sku, received, available, reserved, sold."""
    shipped: set[str]
    slots_booked: int
    runs: dict[str, int]
    """Order to the state of its run."""
    runs_with_gaps: int


async def read(databases: Mapping[str, str]) -> Books:
    """Reads all of it."""
    orders = await _rows(databases["orders"], "SELECT order_id, state, total_minor FROM orders")
    lines = await _rows(
        databases["orders"],
        "SELECT sku, sum(quantity) AS pieces FROM order_line JOIN orders USING (order_id)"
        " WHERE state = 'confirmed' GROUP BY sku",
    )
    entries = await _rows(
        databases["payments"],
        "SELECT order_id, kind, (SELECT sum(minor) FROM posting p WHERE p.entry_id = e.entry_id) AS total"
        " FROM entry e JOIN payment USING (payment_id) ORDER BY at",
    )
    accounts = await _rows(databases["payments"], "SELECT account, sum(minor) AS minor FROM posting GROUP BY account")
    stock = await _rows(databases["inventory"], "SELECT sku, received, available, reserved, sold FROM stock")
    shipments = await _rows(databases["shipping"], "SELECT order_id FROM shipment")
    slots = await _rows(databases["shipping"], "SELECT coalesce(sum(booked), 0) AS booked FROM slots")
    runs = await _rows(databases["orchestrator"], "SELECT idempotency_key, state FROM run")
    gaps = await _rows(
        databases["orchestrator"],
        "SELECT run_id FROM journal GROUP BY run_id HAVING min(seq) <> 1 OR max(seq) <> count(*)",
    )
    kinds: dict[str, list[str]] = {}
    for entry in entries:
        kinds.setdefault(entry["order_id"], []).append(entry["kind"])
    balances = {row["account"]: int(row["minor"]) for row in accounts}
    return Books(
        orders={row["order_id"]: row["state"] for row in orders},
        totals={row["order_id"]: row["total_minor"] for row in orders},
        pieces=Counter({row["sku"]: int(row["pieces"]) for row in lines}),
        unbalanced_entries=sum(entry["total"] != 0 for entry in entries),
        entries=kinds,
        merchant=balances.get("merchant", 0),
        ledger=sum(balances.values()),
        stock=stock,
        shipped={row["order_id"] for row in shipments},
        slots_booked=int(slots[0]["booked"]),
        runs={row["idempotency_key"]: row["state"] for row in runs},
        runs_with_gaps=len(gaps),
    )


async def _rows(url: str, query: str) -> list[dict[str, Any]]:
    connection = await asyncpg.connect(url)
    try:
        return [dict(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


def settled(books: Books) -> bool:
    """Whether nothing is on its way any more: no order is pending, and what was sold has left the shelf."""
    return "pending" not in books.orders.values() and not any(row["reserved"] for row in books.stock)


def prove(books: Books, telling: Telling) -> None:
    """States every claim about the books."""
    confirmed = {order for order, state in books.orders.items() if state == "confirmed"}
    rejected = {order for order, state in books.orders.items() if state == "rejected"}
    _money(books, confirmed, rejected, telling)
    wrong = [row for row in books.stock if row["received"] != row["available"] + row["reserved"] + row["sold"]]
    telling.claim("every article: received = available + reserved + sold", not wrong, wrong)
    left = {row["sku"]: row["sold"] + row["reserved"] for row in books.stock if row["sold"] + row["reserved"]}
    telling.claim("what left the shelf is what confirmed orders contain", left == dict(books.pieces), left)
    telling.claim("a parcel for each confirmed order, and for no other", books.shipped == confirmed)
    telling.claim("the carrier's slots are the parcels", books.slots_booked == len(confirmed), books.slots_booked)
    unended = {order: state for order, state in books.runs.items() if state not in (COMPLETED, COMPENSATED)}
    telling.claim("every run has ended", not unended, unended)
    telling.claim("a run for each order", set(books.runs) == set(books.orders))
    completed = {order for order, state in books.runs.items() if state == COMPLETED}
    telling.claim(
        f"{len(confirmed)} confirmed orders have completed runs, {len(rejected)} rejected ones compensated runs",
        completed == confirmed and set(books.runs) - completed == rejected,
        sorted(completed ^ confirmed)[:5],
    )
    telling.claim("no journal has a gap", books.runs_with_gaps == 0, books.runs_with_gaps)


def _money(books: Books, confirmed: set[str], rejected: set[str], telling: Telling) -> None:
    telling.claim("every ledger entry sums to zero", books.unbalanced_entries == 0, books.unbalanced_entries)
    telling.claim("all accounts together sum to zero", books.ledger == 0, books.ledger)
    twice = [order for order, kinds in books.entries.items() if kinds.count("charge") > 1]
    telling.claim("no order was charged twice", not twice, twice)
    paid = {order for order, kinds in books.entries.items() if kinds == ["charge"]}
    telling.claim(
        "confirmed orders were charged once and not refunded", paid == confirmed, sorted(paid ^ confirmed)[:5]
    )
    kept = [order for order in rejected if books.entries.get(order, []) not in ([], ["charge", "refund"])]
    telling.claim("rejected orders were never charged, or got everything back", not kept, kept)
    due = sum(books.totals[order] for order in confirmed)
    telling.claim(
        f"the merchant holds what {len(confirmed)} confirmed orders cost: {due / 100:,.2f} EUR",
        books.merchant == due,
        books.merchant,
    )
