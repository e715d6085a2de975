"""Somebody who opens an account, is known, and closes it; and what the databases know of them. Called by `stories`."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import asyncpg
from amends_chassis.certificates import Certificates
from amends_chassis.dial import dial

from shop.customers.v1 import customers_pb2
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from shop.identity.v1 import identity_pb2
from shop.identity.v1.identity_pb2_grpc import IdentityServiceStub
from shop.marketing.v1 import marketing_pb2
from shop.marketing.v1.marketing_pb2_grpc import MarketingServiceStub

EMAIL_ADDRESS, NAME = "grace@example.net", "Grace Hopper"
PASSWORD = "a password of one's own"  # noqa: S105 - of somebody who is made up
PEOPLE = ("identity", "customers", "marketing", "notifications")
CALL = timedelta(seconds=20).total_seconds()
HEARD_WITHIN = timedelta(seconds=15)

_TABLES = "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'"


async def open_account(identity: str, certificates: Certificates | None) -> identity_pb2.Tokens:
    """Open an account at the identity service at HOST:PORT, and sign in."""
    who = {"email_address": EMAIL_ADDRESS, "password": PASSWORD}
    async with dial(identity, certificates=certificates) as channel:
        stub: Any = IdentityServiceStub(channel)
        await stub.SignUp(identity_pb2.SignUpRequest(**who), timeout=CALL)
        answer: identity_pb2.SignInResponse = await stub.SignIn(identity_pb2.SignInRequest(**who), timeout=CALL)
    return answer.tokens


async def become_known(
    tokens: identity_pb2.Tokens, customers: str, marketing: str, certificates: Certificates | None
) -> None:
    """Tell both services that have a Customer what they need of the one who has these tokens."""
    account_id, shown = tokens.account_id, _shown(tokens.access_token)
    details = customers_pb2.ChangeCustomerRequest(account_id=account_id, name=NAME, email_address=EMAIL_ADDRESS)
    consent = marketing_pb2.SetConsentRequest(
        account_id=account_id, purpose=marketing_pb2.PURPOSE_EMAIL, granted=True, wording="newsletter-1"
    )
    async with dial(customers, certificates=certificates) as channel:
        orders_customer: Any = CustomerServiceStub(channel)
        await orders_customer.ChangeCustomer(details, metadata=shown, timeout=CALL)
    async with dial(marketing, certificates=certificates) as channel:
        marketings_customer: Any = MarketingServiceStub(channel)
        await marketings_customer.SetConsent(consent, metadata=shown, timeout=CALL)


def _shown(access_token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {access_token}"),)


async def close_account(identity: str, access_token: str, certificates: Certificates | None) -> None:
    """Close the account of an access token."""
    async with dial(identity, certificates=certificates) as channel:
        stub: Any = IdentityServiceStub(channel)
        await stub.CloseAccount(
            identity_pb2.CloseAccountRequest(password=PASSWORD),
            metadata=_shown(access_token),
            timeout=CALL,
        )


async def until_known(databases: Mapping[str, str], wanted: set[str]) -> set[str]:
    """Wait until exactly these services know something; return those that do, also when it is not so in time."""
    end = asyncio.get_running_loop().time() + HEARD_WITHIN.total_seconds()
    while True:
        known = {place.partition(".")[0] for place in await places_of(databases)}
        if known == wanted or asyncio.get_running_loop().time() > end:
            return known
        await asyncio.sleep(0.1)


async def places_of(databases: Mapping[str, str]) -> list[str]:
    """Return the tables, as service.table, that have name or e-mail address in a row, also inside of bytes."""
    sought = [f"%{form}%" for text in (EMAIL_ADDRESS, NAME) for form in (text, text.encode().hex())]
    found = []
    for name in PEOPLE:
        connection = await asyncpg.connect(databases[name])
        try:
            for (table,) in await connection.fetch(_TABLES):
                query = f"SELECT EXISTS (SELECT FROM {table} AS t WHERE t::text ILIKE ANY($1::text[]))"  # noqa: S608
                if await connection.fetchval(query, sought):
                    found.append(f"{name}.{table}")
        finally:
            await connection.close()
    return sorted(found)
