"""The gateway in front of the services of the shop, as a client over HTTP has it."""

import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from amends_chassis.service import Runtime, running
from pydantic import SecretStr
from shop_catalog.__main__ import assemble as assemble_catalog
from shop_catalog.settings import Settings as CatalogSettings
from shop_customers.__main__ import assemble as assemble_customers
from shop_customers.settings import Settings as CustomersSettings
from shop_gateway.assemble import assemble as assemble_gateway
from shop_gateway.settings import Settings as GatewaySettings
from shop_identity.assemble import assemble as assemble_identity
from shop_identity.settings import Settings as IdentitySettings
from shop_marketing.__main__ import assemble as assemble_marketing
from shop_marketing.settings import Settings as MarketingSettings
from shop_notifications.__main__ import assemble as assemble_notifications
from shop_notifications.settings import Settings as NotificationsSettings

from shop.catalog.v1 import catalog_pb2
from shop.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from shop.types.v1 import types_pb2

from .market import Market

ISSUER = "https://identity.shop.test"
AUDIENCE = "shop"
NOBODY = "127.0.0.1:1"
TARGETS = ("catalog", "customers", "identity", "inventory", "marketing", "notifications", "orders", "search")
PASSWORD = "correct horse battery"
ADDRESS = {"recipient": "Ada", "street": "Rosenweg 3", "city": "Berlin", "postalCode": "10115", "country": "DE"}
ORDER = {"lines": [{"sku": "mug", "quantity": 1}], "cardToken": "tok_visa", "address": ADDRESS}
_numbers = itertools.count(1)


@dataclass
class Front:
    """The services behind the gateway, where they are, and what the gateway is told."""

    settings: dict[str, Any]
    catalog: Any

    async def person(self, client: httpx.AsyncClient, password: str = PASSWORD) -> dict[str, str]:
        """Open an account and sign in; the headers of whoever it is."""
        known = {"emailAddress": f"person-{next(_numbers)}@example.com", "password": password}
        assert (await client.post("/v1/accounts", json=known)).status_code == 202
        session = await client.post("/v1/sessions", json=known)
        assert session.status_code == 201, session.text
        return {"authorization": f"Bearer {session.json()['accessToken']}"}


class Client(httpx.AsyncClient):
    """A client of a gateway, whose process it can stop."""

    def __init__(self, runtime: Runtime, **told: Any) -> None:
        super().__init__(**told)
        self.runtime = runtime


@asynccontextmanager
async def gateway(**told: Any) -> AsyncIterator["Client"]:
    """A client of a gateway; where it is not told otherwise, nobody is behind it."""
    where: dict[str, Any] = {f"{name}_target": NOBODY for name in TARGETS}
    where |= {
        "token_issuer": ISSUER,
        "token_audience": AUDIENCE,
        "token_keys_url": f"http://{NOBODY}/",
        "drain": "2s",
        "cookie_secret": SecretStr("x" * 32),
    }
    settings = GatewaySettings(**(where | told))
    async with running(settings, partial(assemble_gateway, settings)) as runtime:
        address = runtime.attached("http").address
        async with Client(runtime, base_url=f"http://{address}", timeout=20) as client:
            yield client


@asynccontextmanager
async def front(market: Market, make: Callable[[], Awaitable[str]], folder: Path) -> AsyncIterator[Front]:
    """Run what a market has not, for a block."""
    async with AsyncExitStack() as stack:

        async def start(settings: Any, assemble: Any) -> Runtime:
            return await stack.enter_async_context(running(settings, assemble))

        async def common() -> dict[str, Any]:
            return {
                "database_url": SecretStr(await make()),
                "database_pool": 4,
                "broker": SecretStr(market.broker),
                "drain": timedelta(seconds=1),
            }

        identity_settings = IdentitySettings(
            **await common(), issuer=ISSUER, key_secret=SecretStr("x" * 32), report_file=(report := folder / "identity")
        )
        identity = await start(identity_settings, partial(assemble_identity, identity_settings))
        keys = f"http://{reported(report, 'jwks')}/.well-known/jwks.json"
        tokens: dict[str, Any] = {"token_issuer": ISSUER, "token_audience": AUDIENCE, "token_keys_url": keys}
        customers_settings = CustomersSettings(**await common(), **tokens)
        customers = await start(customers_settings, partial(assemble_customers, customers_settings))
        catalog_settings = CatalogSettings(**await common())
        catalog = await start(catalog_settings, partial(assemble_catalog, catalog_settings))
        marketing_settings = MarketingSettings(**await common(), **tokens)
        marketing = await start(marketing_settings, partial(assemble_marketing, marketing_settings))
        notifications_settings = NotificationsSettings(**await common(), **tokens)
        notifications = await start(notifications_settings, partial(assemble_notifications, notifications_settings))
        where = {
            "catalog_target": catalog.address,
            "customers_target": customers.address,
            "identity_target": identity.address,
            "inventory_target": market.addresses["inventory"],
            "marketing_target": marketing.address,
            "notifications_target": notifications.address,
            "orders_target": market.addresses["orders"],
        }
        stub: Any = CatalogServiceStub(catalog.channel(catalog.address))
        await stub.PutArticle(catalog_pb2.PutArticleRequest(sku="mug", name="Blue mug", category="mugs"))
        await stub.PutArticle(catalog_pb2.PutArticleRequest(sku="tea/assam", name="Assam", category="tea"))
        await stub.PutArticle(catalog_pb2.PutArticleRequest(sku="tea-assam", name="Assam", category="tea"))
        price = types_pb2.Money(currency="EUR", minor=900)
        for sku in ("mug", "tea-assam"):
            await stub.SetPrice(catalog_pb2.SetPriceRequest(sku=sku, price=price))
        yield Front(where | tokens | {"rate_per_address": 10_000, "rate_per_account": 10_000}, stub)


def reported(report: Path, name: str) -> str:
    """The address that a service has reported under a name."""
    return str(json.loads(report.read_text())[name])
