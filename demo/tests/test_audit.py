"""The check of the books names what is wrong: each law is broken by hand, in databases as the services make them."""

import io
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from amends_demo import books, laws
from amends_demo.audit import DatabasesUnknownError, audit, databases, report
from amends_demo.commands import main
from amends_demo.place import ShopFolder
from amends_demo.playbill import prove
from amends_demo.telling import Telling
from amends_embedded import Postgres
from amends_testkit.service import migrated
from rich.console import Console

Connections = Mapping[str, Any]
PACKAGES = {
    "orders": "shop_orders",
    "inventory": "shop_inventory",
    "payments": "shop_payments",
    "shipping": "shop_shipping",
    "reporting": "shop_reporting",
    "orchestrator": "amends_orchestrator",
}
SOUND = {
    "orders": """
        INSERT INTO orders (order_id, digest, customer_id, currency, total_minor, recipient, street, city, postal_code,
                            country, state, run_id, tracking_id, payment_id, reason)
        VALUES ('good', '', 'c', 'EUR', 900, 'r', 's', 'c', 'p', 'DE', 'confirmed', 'run-1', 'trk-1', 'pay-1', NULL),
               ('bad', '', 'c', 'EUR', 900, 'r', 's', 'c', 'p', 'DE', 'rejected', 'run-2', NULL, NULL, 'declined'),
               ('new', '', 'c', 'USD', 500, 'r', 's', 'c', 'p', 'DE', 'pending', NULL, NULL, NULL, NULL);
        INSERT INTO order_line VALUES ('good', 'mug', 1, 900), ('bad', 'mug', 1, 900), ('new', 'mug', 1, 500);
    """,
    "payments": """
        INSERT INTO payment (payment_id, order_id, currency, minor, card_fingerprint, card_last_four, state, disputed,
                             refund_id, charged_at, told_at)
        VALUES ('pay-1', 'good', 'EUR', 900, 'f', '4242', 'charged', false, NULL, now() - interval '1 hour',
                ARRAY[now() - interval '1 hour']),
               ('pay-2', 'bad', 'EUR', 900, 'f', '4242', 'refunded', false, 'ref-2', now() - interval '1 hour',
                ARRAY[now() - interval '1 hour']);
        INSERT INTO entry (entry_id, payment_id, kind, currency)
        VALUES ('e-1', 'pay-1', 'charge', 'EUR'), ('e-2', 'pay-2', 'charge', 'EUR'), ('e-3', 'pay-2', 'refund', 'EUR');
        INSERT INTO posting VALUES ('e-1', 'customer-cards', -900), ('e-1', 'merchant', 900),
               ('e-2', 'customer-cards', -900), ('e-2', 'merchant', 900),
               ('e-3', 'customer-cards', 900), ('e-3', 'merchant', -900);
    """,
    "inventory": """
        INSERT INTO stock VALUES ('mug', 10, 8, 1, 1);
        INSERT INTO reservation (order_id, reservation_id, state)
        VALUES ('good', 'r-1', 'dispatched'), ('bad', 'r-2', 'released'), ('new', 'r-3', 'held');
        INSERT INTO movement (reference, kind, sku, quantity)
        VALUES ('d-1', 'receive', 'mug', 10), ('good', 'reserve', 'mug', 1), ('good', 'dispatch', 'mug', 1),
               ('bad', 'reserve', 'mug', 1), ('bad', 'release', 'mug', 1), ('new', 'reserve', 'mug', 1);
    """,
    "shipping": """
        INSERT INTO slots VALUES ('DE', 'postal', 99, 1);
        INSERT INTO shipment (tracking_id, order_id, carrier, recipient, street, city, postal_code, country)
        VALUES ('trk-1', 'good', 'postal', 'r', 's', 'c', 'p', 'DE');
        INSERT INTO shipment_line VALUES ('trk-1', 1, 'mug', 1);
    """,
    "reporting": """
        SELECT make_projection(1, 1);
        SELECT switch_projection(1);
        INSERT INTO r1.order_fact (order_id, shard, marks, orders_seen, inventory_seen, payments_seen, shipping_seen,
                                   taken_currency, taken_minor, refunded_currency, refunded_minor)
        VALUES ('good', 0, 0, 1, 1, 1, 1, 'EUR', 900, NULL, NULL), ('bad', 1, 0, 1, 1, 3, 0, 'EUR', 900, 'EUR', 900);
        INSERT INTO r1.sales_sum VALUES ('2026-11-30', 'EUR', 0, 0, 0, 1, 900, 0, 0),
               ('2026-11-30', 'EUR', 1, 0, 0, 1, 900, 1, 900);
    """,
    "orchestrator": """
        SELECT make_journal_partitions(1);
        INSERT INTO run (id, fence, state, rules, digest, payload, namespace, saga, idempotency_key)
        SELECT run_id_floor(clock_timestamp()), 1, state, 1, '', '', 'shop', 'place-order', key
        FROM (VALUES (4, 'good')) AS v (state, key);
        INSERT INTO run (id, fence, state, rules, digest, payload, namespace, saga, idempotency_key)
        VALUES (gen_random_uuid(), 1, 5, 1, '', '', 'shop', 'place-order', 'bad'),
               (gen_random_uuid(), 1, 1, 1, '', '', 'shop', 'place-order', 'new');
        INSERT INTO journal SELECT id, seq, 1, '' FROM run, generate_series(1, 3) AS seq WHERE idempotency_key = 'good';
    """,
}
LOOSE = {
    "orders": "ALTER TABLE orders DROP CONSTRAINT confirmed_has_papers,"
    " DROP CONSTRAINT token_is_erased_once_the_saga_has_it, DROP CONSTRAINT rejected_has_reason,"
    " DROP CONSTRAINT choreographed_has_no_run",
    "payments": "ALTER TABLE entry DISABLE TRIGGER USER; ALTER TABLE posting DISABLE TRIGGER USER;"
    " ALTER TABLE payment DROP CONSTRAINT payment_check",
    "inventory": "ALTER TABLE stock DROP CONSTRAINT nothing_is_lost",
}
"""Takes away what the databases themselves would refuse: the check is there for when they did not."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def urls(postgres: Postgres) -> AsyncIterator[dict[str, str]]:
    """Sound books in the six databases: a confirmed order, a rejected one, and one that is on its way."""
    made = {name: await postgres.create(f"books_{name}", f"books_{name}") for name in PACKAGES}
    for name, package in PACKAGES.items():
        async with migrated(made[name], f"{package}.migrations") as database:
            await database.pool.execute(SOUND[name])
    yield made
    for name in made:
        await postgres.drop(f"books_{name}", f"books_{name}")


@pytest_asyncio.fixture(loop_scope="session")
async def by_hand(urls: dict[str, str]) -> AsyncIterator[Connections]:
    """Connections in transactions that are rolled back, so that each test may break what it likes."""
    async with AsyncExitStack() as stack:
        connections = {}
        for name, url in urls.items():
            connection = connections[name] = await asyncpg.connect(url)
            stack.push_async_callback(connection.close)
            transaction = connection.transaction()
            await transaction.start()
            stack.push_async_callback(transaction.rollback)
            await connection.execute(LOOSE.get(name, "SELECT 1"))
        yield connections


def said(found: books.Books) -> tuple[int, str]:
    out = Console(file=io.StringIO(), width=200)
    return report(found, out), out.file.getvalue()  # type: ignore[attr-defined]


async def test_sound_books_keep_every_law_while_an_order_is_on_its_way(urls: dict[str, str]) -> None:
    found = await books.read(urls)
    code, text = said(found)
    assert (code, text.splitlines()[-1]) == (0, f"All {len(laws.LAWS)} laws of the shop hold.")
    assert "1 confirmed, 1 rejected, 0 refunded, 1 pending" in text
    assert not found.is_settled


BREAKS = [
    (
        "the report and the ledger differ",
        "reporting",
        "UPDATE r1.order_fact SET taken_currency = NULL WHERE order_id = 'good'",
        "order good: 9.00 EUR were taken, and are not reported",
    ),
    (
        "the report and the ledger differ",
        "reporting",
        "UPDATE r1.order_fact SET refunded_currency = 'EUR', refunded_minor = 900 WHERE order_id = 'good'",
        "order good: a refund of 9.00 EUR is reported, and there is none",
    ),
    (
        "the report does not add up",
        "reporting",
        "UPDATE r1.sales_sum SET taken_minor = 901 WHERE shard = 0",
        "9.01 EUR by its days, 9.00 EUR by its orders",
    ),
    (
        "an event was not published",
        "payments",
        "INSERT INTO outbox (event_id, topic, partition, key, version, type, dataschema, payload, occurred_at)"
        " SELECT gen_random_uuid(), 'shop.payments.events.v1', 0, 'good', 1, 'x', '', '', now() - interval '1 minute'",
        "payments: 1 events wait",
    ),
    (
        "rejected, and charged",
        "payments",
        "UPDATE payment SET state = 'charged' WHERE order_id = 'bad'",
        "order bad: payment pay-2 of 9.00 EUR stands",
    ),
    (
        "rejected, and shipped",
        "shipping",
        "UPDATE shipment SET order_id = 'bad'",
        "order bad: parcel trk-1",
    ),
    (
        "rejected, and reserved",
        "inventory",
        "UPDATE reservation SET state = 'held' WHERE order_id = 'bad'",
        "order bad: its stock is held",
    ),
    (
        "rejected, and its run was not undone",
        "orchestrator",
        "UPDATE run SET state = 3 WHERE idempotency_key = 'bad'",
        "order bad: its run is in state 3",
    ),
    (
        "confirmed without papers",
        "orders",
        "UPDATE orders SET tracking_id = '' WHERE order_id = 'good'",
        "order good: tracking id '', payment id 'pay-1'",
    ),
    ("confirmed, and not paid", "payments", "UPDATE payment SET order_id = 'x' WHERE order_id = 'good'", "no payment"),
    ("confirmed, and not paid", "payments", "UPDATE payment SET minor = 901 WHERE order_id = 'good'", "9.01 EUR"),
    (
        "confirmed, and not paid",
        "orders",
        "UPDATE orders SET payment_id = 'p' WHERE order_id = 'good'",
        "names payment",
    ),
    ("confirmed, and not shipped", "shipping", "UPDATE shipment SET order_id = 'x'", "there is no parcel"),
    ("confirmed, and not shipped", "shipping", "UPDATE shipment_line SET quantity = 2", "other articles"),
    (
        "confirmed, and not shipped",
        "orders",
        "UPDATE orders SET tracking_id = 't' WHERE order_id = 'good'",
        "names parcel",
    ),
    (
        "confirmed, and its stock is elsewhere",
        "inventory",
        "UPDATE reservation SET state = 'released' WHERE order_id = 'good'",
        "nothing is kept",
    ),
    (
        "confirmed, and its stock is elsewhere",
        "inventory",
        "UPDATE reservation SET state = 'held' WHERE order_id = 'good'",
        "still held",
    ),
    (
        "confirmed, and its stock is elsewhere",
        "orders",
        "UPDATE order_line SET quantity = 2 WHERE order_id = 'good'",
        "other articles were kept",
    ),
    (
        "confirmed, and its run was undone",
        "orchestrator",
        "UPDATE run SET state = 5 WHERE idempotency_key = 'good'",
        "order good",
    ),
    (
        "refunded, and charged",
        "orders",
        "UPDATE orders SET state = 'refunded' WHERE order_id = 'good'",
        "order good: its payment is charged",
    ),
    (
        "undone, and an effect stands",
        "orchestrator",
        "UPDATE run SET state = 5 WHERE idempotency_key = 'good'",
        "run of good: payment pay-1 of 9.00 EUR stands",
    ),
    ("charged for nobody", "payments", "UPDATE payment SET order_id = 'x' WHERE order_id = 'good'", "pay-1"),
    (
        "charged or refunded twice",
        "payments",
        "INSERT INTO entry (entry_id, payment_id, kind, currency) VALUES ('e-4', 'pay-1', 'refund', 'EUR')",
        "pay-1 of good is charged: charge, refund",
    ),
    ("money out of nothing", "payments", "DELETE FROM posting WHERE entry_id = 'e-1' AND minor < 0", "entry e-1"),
    ("money out of nothing", "payments", "DELETE FROM posting WHERE entry_id = 'e-1' AND minor < 0", "hold 9.00 EUR"),
    (
        "the till is wrong",
        "payments",
        "UPDATE entry SET currency = 'USD' WHERE entry_id = 'e-1'",
        "0.00 EUR held, 9.00 EUR charged",
    ),
    ("stock out of nothing", "inventory", "UPDATE stock SET available = 9", "mug"),
    ("stock out of nothing", "inventory", "UPDATE stock SET reserved = 0, available = 9", "mug: 1 kept and 1 sold"),
    ("stock out of nothing", "inventory", "UPDATE stock SET received = 11, available = 9", "delivered=10"),
    ("slots do not match parcels", "shipping", "UPDATE slots SET booked = 2", "postal to DE: 2 booked, 1 parcels"),
    (
        "a card token was kept",
        "orders",
        "UPDATE orders SET card_token = 'tok' WHERE order_id = 'good'",
        "order good",
    ),
    (
        "choreographed, and orchestrated too",
        "orders",
        "UPDATE orders SET fulfilment = 'choreographed', deadline = now() WHERE order_id = 'good'",
        "order good",
    ),
    ("a journal has a gap", "orchestrator", "DELETE FROM journal WHERE seq = 2", "run of good"),
]


@pytest.mark.parametrize(("law", "database", "by", "named"), BREAKS)
async def test_a_broken_law_is_named(by_hand: Connections, law: str, database: str, by: str, named: str) -> None:
    await by_hand[database].execute(by)
    code, text = said(await books.read_from(by_hand))
    assert code == 1
    assert any(line.startswith(f"{law}  ") and named in line for line in text.splitlines()), text
    assert text.endswith("The books are wrong.\n")


@pytest.mark.parametrize(("ended", "code"), [("1 second", 0), ("10 seconds", 1)])
async def test_a_choreographed_order_that_was_rejected_a_moment_ago_may_still_be_undone(
    by_hand: Connections, ended: str, code: int
) -> None:
    await by_hand["orders"].execute(
        "INSERT INTO orders (order_id, digest, customer_id, currency, total_minor, recipient, street, city,"
        " postal_code, country, state, reason, fulfilment, deadline, ended_at) VALUES ('events', '', 'c', 'EUR', 900,"
        " 'r', 's', 'c', 'p', 'DE', 'rejected', 'declined', 'choreographed', now(), now() - $1::text::interval)",
        ended,
    )
    await by_hand["inventory"].execute("UPDATE reservation SET order_id = 'events' WHERE order_id = 'new'")
    await by_hand["inventory"].execute("UPDATE movement SET reference = 'events' WHERE reference = 'new'")
    found, text = said(await books.read_from(by_hand))
    assert found == code, text
    assert ("rejected, and reserved  order events: its stock is held" in text) is bool(code)


async def test_a_parcel_that_was_called_off_is_none(by_hand: Connections) -> None:
    await by_hand["shipping"].execute("UPDATE shipment SET state = 'cancelled'; UPDATE slots SET booked = 0")
    found = await books.read_from(by_hand)
    assert found.shipments == {}
    assert not list(laws.slots(found))


def test_every_law_is_broken_by_some_test() -> None:
    assert {law.name for law in laws.LAWS} == {name for name, *_ in BREAKS}


async def test_the_demo_states_every_law_and_fails_with_each(by_hand: Connections) -> None:
    await by_hand["payments"].execute("UPDATE payment SET state = 'charged' WHERE order_id = 'bad'")
    telling = Telling(Console(file=io.StringIO()))
    prove(await books.read_from(by_hand), telling)
    assert "no rejected order was charged, or it got everything back" in telling.broken
    assert any("none is pending" in text for text in telling.broken)


async def test_an_order_that_was_refunded_in_a_run_that_a_person_ended_breaks_nothing(by_hand: Connections) -> None:
    await by_hand["orders"].execute("UPDATE orders SET state = 'refunded', reason = NULL WHERE order_id = 'bad'")
    await by_hand["orchestrator"].execute("UPDATE run SET state = 4 WHERE idempotency_key = 'bad'")
    code, text = said(await books.read_from(by_hand))
    assert (code, "1 refunded" in text) == (0, True), text


async def test_an_order_that_waits_for_a_person_is_shown_and_breaks_nothing(by_hand: Connections) -> None:
    await by_hand["orders"].execute("UPDATE orders SET attention = 'it has no parcel' WHERE order_id = 'new'")
    await by_hand["orchestrator"].execute("UPDATE run SET state = 3 WHERE idempotency_key = 'new'")
    code, text = said(await books.read_from(by_hand))
    assert code == 0
    assert "waits for a person  order new: it has no parcel" in text
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("amends_demo.audit.SHOWN", 0)
        _, cut = said(await books.read_from(by_hand))
    assert ("order new" in cut, "waits for a person  and 1 more\n" in cut) == (False, True)


async def test_empty_books_prove_nothing(by_hand: Connections) -> None:
    await by_hand["orders"].execute("TRUNCATE orders CASCADE")
    await by_hand["payments"].execute("TRUNCATE payment CASCADE")
    await by_hand["orchestrator"].execute("TRUNCATE run")
    assert said(await books.read_from(by_hand)) == (
        0,
        "There is nothing to check: nothing was ordered, paid or run.\n",
    )


async def test_books_elsewhere_are_named_in_the_environment(
    urls: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMENDS_SHOP_DATABASES", " ".join(f"{name}={url}" for name, url in urls.items()))
    assert databases(ShopFolder(tmp_path)) == urls
    monkeypatch.setenv("AMENDS_SHOP_DATABASES", f"orders={urls['orders']}")
    with pytest.raises(DatabasesUnknownError, match="no URL for orchestrator, reporting, payments, inventory"):
        databases(ShopFolder(tmp_path))


async def test_a_database_that_is_away_is_no_verdict() -> None:
    out = Console(file=io.StringIO(), width=200)
    assert await audit(dict.fromkeys(books.DATABASES, "postgresql://nobody@127.0.0.1:1/x"), out) == 2
    assert "cannot be read" in out.file.getvalue()  # type: ignore[attr-defined]


def test_without_a_shop_it_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AMENDS_SHOP_DATABASES", raising=False)
    assert main(["audit", "--place", str(tmp_path)]) == 2
    assert "AMENDS_SHOP_DATABASES" in capsys.readouterr().out
