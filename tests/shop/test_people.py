"""An account opens and closes: identity, both models of a customer and who writes to them, tied by events alone."""

import ast
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
import pytest_asyncio
import shop_customers.__main__ as customers
import shop_identity.assemble as identity
import shop_marketing.__main__ as marketing
import shop_notifications.__main__ as notifications
from amends_chassis.service import running
from amends_testkit.service import migrated, refusal_of
from amends_testkit.waiting import eventually
from pydantic import SecretStr
from shop_customers.settings import Settings as CustomersSettings
from shop_identity.settings import Settings as IdentitySettings
from shop_marketing.settings import Settings as MarketingSettings
from shop_notifications.settings import Settings as NotificationsSettings

from shop.customers.v1 import customers_pb2, customers_pb2_grpc
from shop.identity.v1 import identity_pb2, identity_pb2_grpc
from shop.marketing.v1 import marketing_pb2, marketing_pb2_grpc
from shop.types.v1.types_pb2 import Address

ROOT = Path(__file__).parents[2]
NAMES = ("identity", "customers", "marketing", "notifications")
PASSWORD, TOKEN = "correct horse battery", "tok_of_ada_alone"
HOME = Address(
    recipient="Augusta King", street="Rosenweg 3a", city="Charlottenburg", postal_code="10585x", country="DE"
)
OWN_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
OF_EVERY_SERVICE = ("outbox", "inbox", "event_decision", "schema_migrations")
"""Tables that have the same columns in every service begin with these."""


@dataclass
class People:
    """The services that know people, each with a database of its own."""

    identity: Any
    customers: Any
    marketing: Any
    databases: dict[str, str]

    async def rows_with(self, *texts: str) -> list[str]:
        """Every row of every table that has one of the texts, also inside of bytes."""
        sought = [form for text in texts for form in (text.lower(), text.encode().hex())]
        found = []
        for name, url in self.databases.items():
            connection = await asyncpg.connect(url)
            try:
                for (table,) in await connection.fetch(OWN_TABLES):
                    rows = await connection.fetch(f"SELECT t::text AS row FROM {table} AS t")
                    found += [f"{name}.{table}" for (row,) in rows if any(one in row.lower() for one in sought)]
            finally:
                await connection.close()
        return sorted(set(found))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def people(make_lasting, nats, tmp_path_factory):
    databases = {name: await make_lasting() for name in NAMES}
    broker, report = SecretStr(nats.url), tmp_path_factory.mktemp("people") / "identity.json"

    def of(name):
        return {"database_url": SecretStr(databases[name]), "broker": broker}

    who = IdentitySettings(key_secret=SecretStr("k" * 32), report_file=report, **of("identity"))
    async with AsyncExitStack() as stack:
        channels = {}

        async def start(settings, assemble):
            runtime = await stack.enter_async_context(running(settings, assemble))
            channels[settings.name] = runtime.channel(runtime.address)

        await start(who, partial(identity.assemble, who))
        told: dict[str, Any] = {
            "token_issuer": who.issuer,
            "token_audience": who.audience,
            "token_keys_url": f"http://{json.loads(report.read_text())['jwks']}/.well-known/jwks.json",
            "token_required": False,
        }
        orders = CustomersSettings(**told, **of("customers"))
        await start(orders, partial(customers.assemble, orders))
        await start(settings := MarketingSettings(**told, **of("marketing")), partial(marketing.assemble, settings))
        writes = NotificationsSettings(**told, **of("notifications"))
        await start(writes, partial(notifications.assemble, writes))
        yield People(
            identity_pb2_grpc.IdentityServiceStub(channels["identity"]),
            customers_pb2_grpc.CustomerServiceStub(channels["customers"]),
            marketing_pb2_grpc.MarketingServiceStub(channels["marketing"]),
            databases,
        )


async def found(call):
    """What a call answers; None while what it asks for is not there."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        return None


async def _is_known(stub, request):
    return await found(stub.GetCustomer(request))


async def signed_in(people, address):
    await people.identity.SignUp(identity_pb2.SignUpRequest(email_address=address, password=PASSWORD))
    request = identity_pb2.SignInRequest(email_address=address, password=PASSWORD)
    return (await people.identity.SignIn(request)).tokens


async def test_opening_and_closing_an_account_reaches_both_customers_and_leaves_nothing(people):
    address = "augusta@example.com"
    tokens = await signed_in(people, address)
    account_id = tokens.account_id
    ordering, marketed = (
        customers_pb2.GetCustomerRequest(account_id=account_id),
        marketing_pb2.GetCustomerRequest(account_id=account_id),
    )
    await eventually(lambda: found(people.customers.GetCustomer(ordering)))
    await eventually(lambda: found(people.marketing.GetCustomer(marketed)))

    mailed = "augusta.mails@example.com"
    await people.customers.ChangeCustomer(
        customers_pb2.ChangeCustomerRequest(
            account_id=account_id, name="Augusta Ada King", email_address=mailed, locale="de", billing_address=HOME
        )
    )
    to = customers_pb2.DeliveryAddress(delivery_address_id="home", label="At the park", address=HOME)
    await people.customers.PutDeliveryAddress(
        customers_pb2.PutDeliveryAddressRequest(account_id=account_id, delivery_address=to)
    )
    card = customers_pb2.PaymentMethod(payment_method_id="card", brand="Visa", last_four="4242")
    await people.customers.PutPaymentMethod(
        customers_pb2.PutPaymentMethodRequest(account_id=account_id, payment_method=card, card_token=TOKEN)
    )
    await people.marketing.SetConsent(
        marketing_pb2.SetConsentRequest(
            account_id=account_id, purpose=marketing_pb2.PURPOSE_EMAIL, granted=True, wording="newsletter-1"
        )
    )
    private = ("augusta", HOME.street, HOME.city, HOME.postal_code, "At the park", TOKEN)
    tables = {
        "customers.billing_address",
        "customers.customer",
        "customers.delivery_address",
        "customers.payment_method",
        "identity.account",
        "notifications.contact",
    }

    async def everybody_knows():
        return tables <= set(await people.rows_with(*private))

    await eventually(everybody_knows, what="the address reaches whoever writes to customers")
    assert not [row for row in await people.rows_with(*private) if row.startswith("marketing")]

    await people.identity.CloseAccount(
        identity_pb2.CloseAccountRequest(password=PASSWORD),
        metadata=(("authorization", f"Bearer {tokens.access_token}"),),
    )

    async def nobody_knows():
        return not await people.rows_with(*private)

    await eventually(nobody_knows, what="nothing is left of the account's person")
    for call in (people.customers.GetCustomer(ordering), people.marketing.GetCustomer(marketed)):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call
        assert refusal_of(error.value) == ("NOT_FOUND", "CUSTOMER_UNKNOWN")
    late = customers_pb2.ChangeCustomerRequest(account_id=account_id, name="Augusta", email_address=mailed)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await people.customers.ChangeCustomer(late)
    assert refusal_of(error.value) == ("NOT_FOUND", "CUSTOMER_UNKNOWN")


async def test_the_tokens_that_identity_gives_out_are_believed_by_who_keeps_customers(people):
    ada, bob = [await signed_in(people, f"{name}.tokens@example.com") for name in ("ada", "bob")]
    for who, asked, answer in ((ada, ada, True), (ada, bob, False), (bob, bob, True), (bob, ada, False)):
        shown = (("authorization", f"Bearer {who.access_token}"),)
        for stub, kind in ((people.customers, customers_pb2), (people.marketing, marketing_pb2)):
            own = kind.GetCustomerRequest(account_id=who.account_id)
            await eventually(partial(_is_known, stub, own), what="the account is heard of")
            request = kind.GetCustomerRequest(account_id=asked.account_id)
            assert bool(await found(stub.GetCustomer(request, metadata=shown))) is answer


def fields_of(message) -> Iterator[str]:
    """The names of a model's fields, those of the messages in it too."""
    for field in message.fields:
        yield field.name
        if field.message_type is not None and not field.message_type.full_name.startswith("google."):
            yield from fields_of(field.message_type)


ORDERING = {*fields_of(customers_pb2.Customer.DESCRIPTOR), "card_token"}
MARKETED = {
    *fields_of(marketing_pb2.Customer.DESCRIPTOR),
    *fields_of(marketing_pb2.Consent.DESCRIPTOR),
    *fields_of(marketing_pb2.SentCampaign.DESCRIPTOR),
}
SHARED = {"account_id"}
COUNTED = {"version"}
"""Every row that events tell of has one."""


async def test_neither_customer_has_a_column_of_the_other_model(make_database):
    columns = {}
    for name in ("customers", "marketing"):
        async with migrated(await make_database(), f"shop_{name}.migrations") as database:
            rows = await database.pool.fetch(
                "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
            )
        columns[name] = {row["column_name"] for row in rows if not row["table_name"].startswith(OF_EVERY_SERVICE)}
    assert ORDERING & MARKETED == SHARED
    assert columns["customers"] & (MARKETED - SHARED) == set()
    assert columns["marketing"] & (ORDERING - SHARED - COUNTED) == set()
    assert {"email_address", "street", "card_token", *SHARED} <= columns["customers"]
    assert {"agreed_to", "wording", "frequency", *SHARED} <= columns["marketing"]


@pytest.mark.parametrize("service", ["customers", "identity", "marketing"])
def test_of_other_services_nothing_is_imported_but_their_events(service):
    imported = set()
    for path in (ROOT / "services" / service / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module)
    own = ("shop.types.", f"shop.{service}.")
    foreign = {name for name in imported if name.startswith("shop.") and not name.startswith(own)}
    assert all(name.split(".")[2] == "events" for name in foreign), foreign
    assert (service == "identity") == (not foreign)
