"""Two customers never see each other: what bob can try to learn or change of ada's, at every service that keeps it.

First by gRPC, past the gateway, and then over REST. Tokens are signed by an issuer of the test; that the services
believe those of identity is in test_people.py.
"""

import base64
import hashlib
import hmac
import json
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import uuid4

import grpc
import pytest
import pytest_asyncio
import shop_customers.__main__ as customers
import shop_marketing.__main__ as marketing
import shop_notifications.__main__ as notifications
import shop_orders.assemble as orders
from amends_chassis.pages import page_token
from amends_chassis.service import running
from amends_testkit.issuer import AUDIENCE, ISSUER, LocalIssuer, local_issuer
from amends_testkit.service import refusal_of
from cryptography.hazmat.primitives import serialization
from pydantic import SecretStr
from shop_customers.settings import Settings as CustomersSettings
from shop_marketing.settings import Settings as MarketingSettings
from shop_notifications.domain import MailTemplate, Notice
from shop_notifications.settings import Settings as NotificationsSettings
from shop_notifications.store import add as add_notice
from shop_orders.settings import Settings as OrdersSettings

from shop.customers.v1 import customers_pb2 as cpb
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from shop.marketing.v1 import marketing_pb2 as mpb
from shop.marketing.v1.marketing_pb2_grpc import MarketingServiceStub
from shop.notifications.v1 import notifications_pb2 as npb
from shop.notifications.v1.notifications_pb2_grpc import NotificationServiceStub
from shop.orders.v1 import orders_pb2 as opb
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shop.types.v1.types_pb2 import Address, Line, Money

from .front import ORDER, gateway

ADA, BOB, STAFF = "acc_ada", "acc_bob", "acc_sam"
EVE, DAN = "acc_eve", "acc_dan"
"""Who order during the tests, so that nothing changes of the others."""
HOME = Address(recipient="Ada", street="Rosenweg 3", city="Berlin", postal_code="10115", country="DE")
NOWHERE = "127.0.0.1:1"
NOTICE = uuid4()
CARD = "tok_of_ada_alone"


@dataclass
class TwoCustomers:
    """The services, and the issuer whose tokens they believe."""

    issuer: LocalIssuer
    orders: Any
    customers: Any
    marketing: Any
    notifications: Any
    addresses: dict[str, str]

    def token(self, subject, **claims):
        """The metadata of a call for somebody."""
        return (("authorization", f"Bearer {self.issuer.token(subject, **claims)}"),)


def order(order_id, customer_id):
    return opb.PlaceOrderRequest(
        order_id=order_id,
        customer_id=customer_id,
        lines=[Line(sku="mug", quantity=1)],
        card_token=CARD if customer_id == ADA else "tok_visa",
        address=HOME,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shop(make_lasting):
    """The services that keep what is somebody's, with what is ada's and one order of bob's."""
    with local_issuer() as issuer:
        told = {"token_issuer": ISSUER, "token_audience": AUDIENCE, "token_keys_url": issuer.url}
        async with AsyncExitStack() as stack:

            async def start(kind, assemble, **more):
                settings = kind(database_url=SecretStr(await make_lasting()), **told, **more)
                return await stack.enter_async_context(running(settings, partial(assemble, settings)))

            placed = await start(OrdersSettings, orders.assemble, orchestrator_target=NOWHERE, inventory_target=NOWHERE)
            runtimes = [
                placed,
                await start(CustomersSettings, customers.assemble),
                await start(MarketingSettings, marketing.assemble),
                noted := await start(NotificationsSettings, notifications.assemble),
            ]
            stubs = (OrderServiceStub, CustomerServiceStub, MarketingServiceStub, NotificationServiceStub)
            made = [stub(one.channel(one.address)) for stub, one in zip(stubs, runtimes, strict=True)]
            addresses = {f"{one.settings.name}_target": one.address for one in runtimes}
            two = TwoCustomers(issuer, made[0], made[1], made[2], made[3], addresses)
            await fill(two, noted)
            yield two


async def fill(two, noted):
    """Give ada orders, a customer, a consent and a message; give bob an order and a message of his own."""
    staff, ada, bob = two.token(STAFF, roles=["staff"]), two.token(ADA), two.token(BOB)
    price = opb.SetPriceRequest(sku="mug", price=Money(currency="EUR", minor=900))
    await two.orders.SetPrice(price, metadata=staff)
    for number in range(2):
        await two.orders.PlaceOrder(order(f"ada-{number}", ADA), metadata=ada)
    await two.orders.PlaceOrder(order("bob-1", BOB), metadata=bob)
    details: dict[str, Any] = {"name": "Ada King", "email_address": "ada@example.com"}
    await two.customers.ChangeCustomer(cpb.ChangeCustomerRequest(account_id=ADA, **details), metadata=ada)
    method = cpb.PaymentMethod(payment_method_id="visa", brand="Visa", last_four="4242")
    await two.customers.PutPaymentMethod(
        cpb.PutPaymentMethodRequest(account_id=ADA, payment_method=method, card_token=CARD), metadata=ada
    )
    agreed = mpb.SetConsentRequest(account_id=ADA, purpose=mpb.PURPOSE_EMAIL, granted=True, wording="n-1")
    await two.marketing.SetConsent(agreed, metadata=ada)
    async with noted.database.transaction() as transaction:
        for event_id, order_id, customer_id in ((NOTICE, "ada-0", ADA), (uuid4(), "bob-1", BOB)):
            about: dict[str, Any] = {"event_id": event_id, "order_id": order_id, "customer_id": customer_id}
            at = datetime.now(UTC)
            notice = Notice(occurred_at=at, template=MailTemplate.ORDER_CONFIRMED, parameters={}, **about)
            await add_notice(transaction, notice, f"<{event_id}@shop.example>")


def put_address(account_id):
    to = cpb.DeliveryAddress(delivery_address_id="home", label="Home", address=HOME)
    return cpb.PutDeliveryAddressRequest(account_id=account_id, delivery_address=to)


def put_method(account_id):
    method = cpb.PaymentMethod(payment_method_id="visa", brand="Visa", last_four="1111")
    return cpb.PutPaymentMethodRequest(account_id=account_id, payment_method=method, card_token="tok_of_bob")


NOTICE_ID = str(Notice(NOTICE, datetime.now(UTC), MailTemplate.ORDER_CONFIRMED, {}).notification_id)
UNKNOWN = ("NOT_FOUND", "CUSTOMER_UNKNOWN")
ATTEMPTS = {
    "an order by its id": ("orders", "GetOrder", opb.GetOrderRequest(order_id="ada-0"), ("NOT_FOUND", "ORDER_UNKNOWN")),
    "all orders of ada": ("orders", "ListOrders", opb.ListOrdersRequest(customer_id=ADA), UNKNOWN),
    "ada's orders from her cursor on": (
        "orders",
        "ListOrders",
        opb.ListOrdersRequest(customer_id=ADA, page_token=page_token("2100-01-01T00:00:00+00:00", "ada-1")),
        UNKNOWN,
    ),
    "an order in her name": ("orders", "PlaceOrder", order("bob-2", ADA), UNKNOWN),
    "her order again, in her name": ("orders", "PlaceOrder", order("ada-0", ADA), UNKNOWN),
    "her order again, in his own": ("orders", "PlaceOrder", order("ada-0", BOB), ("ALREADY_EXISTS", "ORDER_REUSED")),
    "a price": (
        "orders",
        "SetPrice",
        opb.SetPriceRequest(sku="mug", price=Money(currency="EUR", minor=1)),
        ("PERMISSION_DENIED", "ROLE_MISSING"),
    ),
    "the last step of her saga": (
        "orders",
        "Confirm",
        opb.ConfirmRequest(order_id="ada-0", tracking_id="t", payment_id="p"),
        ("PERMISSION_DENIED", "NOT_FOR_PEOPLE"),
    ),
    "her name, which is in the cache": (
        "customers",
        "GetCustomer",
        cpb.GetCustomerRequest(account_id=ADA),
        UNKNOWN,
    ),
    "her name, changed": ("customers", "ChangeCustomer", cpb.ChangeCustomerRequest(account_id=ADA, name="B"), UNKNOWN),
    "where her parcels go": ("customers", "PutDeliveryAddress", put_address(ADA), UNKNOWN),
    "an address of hers, gone": (
        "customers",
        "RemoveDeliveryAddress",
        cpb.RemoveDeliveryAddressRequest(account_id=ADA, delivery_address_id="home"),
        UNKNOWN,
    ),
    "her card, replaced": ("customers", "PutPaymentMethod", put_method(ADA), UNKNOWN),
    "her card, gone": (
        "customers",
        "RemovePaymentMethod",
        cpb.RemovePaymentMethodRequest(account_id=ADA, payment_method_id="visa"),
        UNKNOWN,
    ),
    "her card's token": (
        "customers",
        "GetCardToken",
        cpb.GetCardTokenRequest(account_id=ADA, payment_method_id="visa"),
        UNKNOWN,
    ),
    "what she agreed to": ("marketing", "GetCustomer", mpb.GetCustomerRequest(account_id=ADA), UNKNOWN),
    "when she agreed": ("marketing", "ListConsents", mpb.ListConsentsRequest(account_id=ADA), UNKNOWN),
    "her consent, taken back": (
        "marketing",
        "SetConsent",
        mpb.SetConsentRequest(account_id=ADA, purpose=mpb.PURPOSE_EMAIL, granted=False, wording="n-1"),
        UNKNOWN,
    ),
    "how she is written to": (
        "marketing",
        "SetEmailPreferences",
        mpb.SetEmailPreferencesRequest(
            account_id=ADA, email_preferences=mpb.EmailPreferences(frequency=mpb.FREQUENCY_WEEKLY)
        ),
        UNKNOWN,
    ),
    "what she was sent": ("marketing", "ListSentCampaigns", mpb.ListSentCampaignsRequest(account_id=ADA), UNKNOWN),
    "everybody's campaigns": (
        "marketing",
        "GetCampaign",
        mpb.GetCampaignRequest(campaign_id="spring"),
        ("PERMISSION_DENIED", "ROLE_MISSING"),
    ),
    "a letter to her": (
        "notifications",
        "GetMessage",
        npb.GetMessageRequest(notification_id=NOTICE_ID),
        ("NOT_FOUND", "MESSAGE_UNKNOWN"),
    ),
    "all letters to her": ("notifications", "ListMessages", npb.ListMessagesRequest(customer_id=ADA), UNKNOWN),
}
"""What bob tries with a good token of his own: service, method, request, code and reason of the answer."""


async def answer_to(two, service, method, request, metadata):
    """Code and reason with which a call is refused; the answer when it is not."""
    try:
        return await getattr(getattr(two, service), method)(request, metadata=metadata)
    except grpc.aio.AioRpcError as refused:
        return refusal_of(refused)


@pytest.mark.parametrize("attempt", ATTEMPTS)
async def test_bob_learns_nothing_of_ada_and_changes_nothing(shop, attempt):
    service, method, request, refusal = ATTEMPTS[attempt]
    assert await answer_to(shop, service, method, request, shop.token(BOB)) == refusal


async def test_what_is_not_there_and_what_is_not_ones_own_are_told_the_same(shop):
    async def words(request):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await request
        return refused.value.details()

    bob = shop.token(BOB)
    hers = await words(shop.orders.GetOrder(opb.GetOrderRequest(order_id="ada-0"), metadata=bob))
    nobodys = await words(shop.orders.GetOrder(opb.GetOrderRequest(order_id="eve-0"), metadata=bob))
    assert hers.replace("ada-0", "eve-0") == nobodys
    other = npb.GetMessageRequest(notification_id=str(NOTICE))
    hers = await words(shop.notifications.GetMessage(npb.GetMessageRequest(notification_id=NOTICE_ID), metadata=bob))
    nobodys = await words(shop.notifications.GetMessage(other, metadata=bob))
    assert hers.replace(NOTICE_ID, str(NOTICE)) == nobodys
    for account_id in (ADA, "acc_nobody"):
        told = await words(shop.customers.GetCustomer(cpb.GetCustomerRequest(account_id=account_id), metadata=bob))
        assert told == f"account {account_id} has no customer"


async def test_lists_have_ones_own_whatever_is_asked_for(shop):
    bob, ada = shop.token(BOB), shop.token(ADA)
    page = await shop.orders.ListOrders(opb.ListOrdersRequest(page_size=1), metadata=ada)
    assert [one.order_id for one in page.orders] == ["ada-1"]
    for token in ("", page.next_page_token):
        found = await shop.orders.ListOrders(opb.ListOrdersRequest(page_token=token), metadata=bob)
        assert {one.customer_id for one in found.orders} <= {BOB}, "a cursor is a place, and gives no rights"
    letters = await shop.notifications.ListMessages(npb.ListMessagesRequest(), metadata=bob)
    assert [one.order_id for one in letters.messages] == ["bob-1"]
    letters = await shop.notifications.ListMessages(npb.ListMessagesRequest(order_id="ada-0"), metadata=bob)
    assert not letters.messages


async def test_after_all_attempts_everything_is_as_ada_left_it(shop):
    ada = shop.token(ADA)
    for service, method, request, _ in ATTEMPTS.values():
        await answer_to(shop, service, method, request, shop.token(BOB))
    placed = (await shop.orders.ListOrders(opb.ListOrdersRequest(), metadata=ada)).orders
    assert [(one.order_id, one.state) for one in placed] == [
        ("ada-1", opb.ORDER_STATE_PENDING),
        ("ada-0", opb.ORDER_STATE_PENDING),
    ]
    customer = (await shop.customers.GetCustomer(cpb.GetCustomerRequest(account_id=ADA), metadata=ada)).customer
    assert (customer.name, len(customer.delivery_addresses)) == ("Ada King", 0)
    assert [one.last_four for one in customer.payment_methods] == ["4242"]
    card = cpb.GetCardTokenRequest(account_id=ADA, payment_method_id="visa")
    assert (await shop.customers.GetCardToken(card, metadata=ada)).card_token == CARD
    agreed = (await shop.marketing.GetCustomer(mpb.GetCustomerRequest(account_id=ADA), metadata=ada)).customer
    assert agreed.agreed_to == [mpb.PURPOSE_EMAIL]
    assert agreed.email_preferences.frequency == mpb.FREQUENCY_ANY


async def test_staff_may_read_about_ada_and_does_nothing_in_her_name(shop):
    staff = shop.token(STAFF, roles=["staff"])
    found = await shop.orders.GetOrder(opb.GetOrderRequest(order_id="ada-0"), metadata=staff)
    assert found.order.customer_id == ADA
    everybody = await shop.orders.ListOrders(opb.ListOrdersRequest(), metadata=staff)
    assert {one.customer_id for one in everybody.orders} >= {ADA, BOB}
    assert len((await shop.notifications.ListMessages(npb.ListMessagesRequest(), metadata=staff)).messages) == 2
    for attempt in ("an order in her name", "her name, changed", "her card's token", "her consent, taken back"):
        service, method, request, refusal = ATTEMPTS[attempt]
        assert await answer_to(shop, service, method, request, staff) == refusal, attempt


def unsigned(token, algorithm, secret=None):
    """The claims of a token with another header, signed with a secret or not at all."""

    def part(content):
        return base64.urlsafe_b64encode(content).rstrip(b"=")

    header = part(json.dumps({"alg": algorithm, "kid": "k1", "typ": "at+jwt"}).encode())
    body = header + b"." + token.split(".")[1].encode()
    return (body + b"." + (part(hmac.digest(secret, body, hashlib.sha256)) if secret else b"")).decode()


def public_pem(issuer):
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return issuer.keys["k1"].public_key().public_bytes(serialization.Encoding.PEM, form)


FORGED = {
    "no token": (lambda issuer: None, "TOKEN_MISSING"),
    "an empty one": (lambda issuer: "", "TOKEN_MALFORMED"),
    "her account instead of a token": (lambda issuer: ADA, "TOKEN_MALFORMED"),
    "one of no algorithm": (lambda issuer: unsigned(issuer.token(ADA), "none"), "TOKEN_ALGORITHM_WRONG"),
    "the public key as a secret": (
        lambda issuer: unsigned(issuer.token(ADA), "HS256", public_pem(issuer)),
        "TOKEN_ALGORITHM_WRONG",
    ),
    "her name in his token": (
        lambda issuer: ".".join(
            (issuer.token(BOB).split(".")[0], issuer.token(ADA).split(".")[1], issuer.token(BOB).split(".")[2])
        ),
        "TOKEN_SIGNATURE_WRONG",
    ),
    "a key of his own": (lambda issuer: issuer.token(ADA, key=LocalIssuer().keys["k1"]), "TOKEN_SIGNATURE_WRONG"),
    "a key that he names": (lambda issuer: issuer.token(ADA, headers={"kid": "k9"}), "TOKEN_KEY_UNKNOWN"),
    "one that she threw away": (lambda issuer: issuer.token(ADA, exp=int(time.time()) - 60), "TOKEN_EXPIRED"),
    "one for another shop": (lambda issuer: issuer.token(ADA, aud="another"), "TOKEN_AUDIENCE_WRONG"),
    "one of another issuer": (lambda issuer: issuer.token(ADA, iss="https://elsewhere"), "TOKEN_ISSUER_WRONG"),
    "one without an end": (lambda issuer: issuer.token(ADA, exp=None), "TOKEN_CLAIM_MISSING"),
    "one for refreshing": (lambda issuer: issuer.token(ADA, headers={"typ": "JWT"}), "TOKEN_MALFORMED"),
}
"""What bob shows instead of ada's token, and why it is not believed."""


@pytest.mark.parametrize("forged", FORGED)
async def test_bob_cannot_pass_for_ada(shop, forged):
    made, reason = FORGED[forged]
    token = made(shop.issuer)
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    for service, method, request in (
        ("orders", "GetOrder", opb.GetOrderRequest(order_id="ada-0")),
        ("customers", "GetCustomer", cpb.GetCustomerRequest(account_id=ADA)),
    ):
        assert await answer_to(shop, service, method, request, metadata) == ("UNAUTHENTICATED", reason)


HERS = "/v1/orders/ada-0"
OVER_REST: dict[str, tuple[str, Any, Any, Any]] = {
    "an order by its address": ("GET", HERS, {}, (404, "ORDER_UNKNOWN")),
    "an order, if it has changed": ("GET", HERS, {"headers": {"if-none-match": "*"}}, (404, "ORDER_UNKNOWN")),
    "its address, written otherwise": ("GET", "/v1/orders/%61da-0", {}, (404, "ORDER_UNKNOWN")),
    "its head": ("HEAD", HERS, {}, (404, None)),
    "its progress": ("GET", f"{HERS}/progress", {}, (404, "ORDER_UNKNOWN")),
    "the rest of its progress": (
        "GET",
        f"{HERS}/progress",
        {"headers": {"last-event-id": "1"}},
        (404, "ORDER_UNKNOWN"),
    ),
    "its end": ("POST", f"{HERS}/cancel", {}, (404, "ORDER_UNKNOWN")),
    "an order that eve has, under its address": ("PUT", None, {"json": ORDER}, (422, "ORDER_REUSED")),
    "an order in her name": (
        "POST",
        "/v1/orders",
        {"json": ORDER | {"customerId": ADA}, "headers": {"idempotency-key": "k"}},
        (400, "BODY_INVALID"),
    ),
    "her orders": ("GET", "/v1/orders", {"params": {"customerId": ADA}}, (400, "PARAMETER_UNKNOWN")),
    "her letters": ("GET", "/v1/me/messages", {"params": {"customerId": ADA}}, (400, "PARAMETER_UNKNOWN")),
    "her profile": ("GET", "/v1/me/profile", {"params": {"accountId": ADA}}, (400, "PARAMETER_UNKNOWN")),
    "her profile, by its name": ("GET", f"/v1/customers/{ADA}", {}, (404, "ROUTE_UNKNOWN")),
    "another's name beside his token": (
        "GET",
        HERS,
        {"headers": {"amends-on-behalf-of": ADA, "x-forwarded-user": ADA, "amends-actor": ADA}},
        (404, "ORDER_UNKNOWN"),
    ),
}
"""What bob tries over REST: method, address, what more he sends, and the answer. No address: an order of eve's."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def web(shop):
    """A client of a gateway in front of the services."""
    told = {"token_issuer": ISSUER, "token_audience": AUDIENCE, "token_keys_url": shop.issuer.url}
    async with gateway(**told, **shop.addresses) as client:
        yield client


def headers_of(shop, subject):
    return dict(shop.token(subject))


def told_by(answer):
    """Status and reason of an answer."""
    return answer.status_code, answer.json()["reason"] if answer.content else None


@pytest.mark.parametrize("attempt", OVER_REST)
async def test_over_rest_bob_learns_nothing_of_ada_and_changes_nothing(shop, web, attempt):
    method, address, sent, told = OVER_REST[attempt]
    if address is None:
        address = f"/v1/orders/{uuid4()}"
        assert (await web.put(address, json=ORDER, headers=headers_of(shop, EVE))).status_code == 202
    sent = sent | {"headers": sent.get("headers", {}) | headers_of(shop, BOB)}
    assert told_by(await web.request(method, address, **sent)) == told
    state = (await web.get(HERS, headers=headers_of(shop, ADA))).json()["state"]
    assert state == "ORDER_STATE_PENDING"


async def test_over_rest_lists_have_ones_own_whatever_cursor_is_shown(shop, web):
    ada, bob = headers_of(shop, ADA), headers_of(shop, BOB)
    first = (await web.get("/v1/orders", params={"pageSize": 1}, headers=ada)).json()
    following = first["_links"]["next"]["href"]
    assert (await web.get(following, headers=ada)).json()["orders"]
    for address in ("/v1/orders", following):
        found = (await web.get(address, headers=bob)).json()["orders"]
        assert {one["orderId"] for one in found} <= {"bob-1"}
    letters = (await web.get("/v1/me/messages", headers=bob)).json()
    assert "ada-0" not in json.dumps(letters)
    assert "bob-1" in json.dumps(letters)
    profile = await web.get("/v1/me/profile", headers=ada)
    assert profile.json()["name"] == "Ada King"
    not_hers = await web.get("/v1/me/profile", headers=bob | {"if-none-match": profile.headers["etag"]})
    assert "Ada" not in not_hers.text


async def test_over_rest_one_key_of_two_people_is_two_orders(shop, web):
    key = {"idempotency-key": "same"}
    answers = [await web.post("/v1/orders", json=ORDER, headers=headers_of(shop, who) | key) for who in (EVE, DAN)]
    assert len({answer.json()["orderId"] for answer in answers}) == 2


@pytest.mark.parametrize("forged", FORGED)
async def test_over_rest_bob_cannot_pass_for_ada(shop, web, forged):
    made, reason = FORGED[forged]
    token = made(shop.issuer)
    headers = {} if token is None else {"authorization": f"Bearer {token or 'x'}"}
    answer = await web.get(HERS, headers=headers)
    assert told_by(answer) == (401, reason)
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_over_rest_a_token_is_shown_in_one_place_alone(shop, web):
    token = shop.issuer.token(ADA)
    missing = (401, "TOKEN_MISSING")
    cookie = {"cookie": f"access_token={token}; authorization=Bearer {token}"}
    assert told_by(await web.get(HERS, headers=cookie)) == missing
    assert told_by(await web.get(HERS, params={"access_token": token})) in (missing, (400, "PARAMETER_UNKNOWN"))
    two = [("authorization", f"Bearer {shop.issuer.token(BOB)}"), ("authorization", f"Bearer {token}")]
    assert (await web.get(HERS, headers=two)).status_code in (400, 401, 404)
