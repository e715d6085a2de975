"""The service as its callers see it: over gRPC, with a real database."""

import grpc
import pytest
from amends_cache import Cache
from amends_events import Outbox
from amends_testkit.service import refusal_of, refusals_of
from prometheus_client import CollectorRegistry
from shop_customers import api, domain
from shop_customers.events import PUBLISHES, handlers

from shop.customers.v1 import customers_pb2 as pb
from shop.identity.events.v1.identity_pb2 import AccountClosed
from shop.types.v1.types_pb2 import Address

HOME = Address(recipient="Ada Lovelace", street="Rosenweg 3", city="Berlin", postal_code="10115", country="DE")


def change(account_id="acc-1", version=0, **changes):
    said = {"name": "Ada Lovelace", "email_address": "ada@example.com", "locale": "de", "billing_address": HOME}
    return pb.ChangeCustomerRequest(account_id=account_id, version=version, **(said | changes))


def address(delivery_address_id="home", account_id="acc-1", **changes):
    to = {"delivery_address_id": delivery_address_id, "label": "Home", "address": HOME} | changes
    return pb.PutDeliveryAddressRequest(account_id=account_id, delivery_address=pb.DeliveryAddress(**to))


def card(payment_method_id="card-1", account_id="acc-1", token="tok_visa", brand="Visa", last_four="4242"):
    method = pb.PaymentMethod(payment_method_id=payment_method_id, brand=brand, last_four=last_four)
    return pb.PutPaymentMethodRequest(account_id=account_id, payment_method=method, card_token=token)


async def customer(service, account_id="acc-1"):
    return (await service.GetCustomer(pb.GetCustomerRequest(account_id=account_id))).customer


def test_every_refusal_of_the_domain_has_an_answer():
    assert set(api.ERRORS) == refusals_of(domain)


async def test_a_customer_is_read_as_it_was_written(service):
    written = (await service.ChangeCustomer(change())).customer
    await service.PutDeliveryAddress(address())
    await service.PutDeliveryAddress(address("a-first", label="Office"))
    await service.PutPaymentMethod(card())
    read = await customer(service)
    assert [one.delivery_address_id for one in read.delivery_addresses] == ["a-first", "home"]
    assert [(one.brand, one.last_four) for one in read.payment_methods] == [("Visa", "4242")]
    assert read.billing_address == HOME
    assert (read.name, read.email_address, read.locale) == ("Ada Lovelace", "ada@example.com", "de")
    assert read.version == written.version
    assert "tok_visa" not in str(read)


async def test_only_one_method_answers_with_a_token(service):
    await service.PutPaymentMethod(card())
    answer = await service.GetCardToken(pb.GetCardTokenRequest(account_id="acc-1", payment_method_id="card-1"))
    assert answer.card_token == "tok_visa"
    for account_id, method in (("acc-2", "card-1"), ("acc-1", "card-2")):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await service.GetCardToken(pb.GetCardTokenRequest(account_id=account_id, payment_method_id=method))
        assert refusal_of(error.value) == ("NOT_FOUND", "PAYMENT_METHOD_UNKNOWN")


async def test_the_same_change_again_is_no_change_and_an_old_one_is_refused(service):
    first = (await service.ChangeCustomer(change())).customer
    assert (await service.ChangeCustomer(change(version=first.version - 1))).customer == first
    second = (await service.ChangeCustomer(change(version=first.version, name="A. Lovelace"))).customer
    assert second.version == first.version + 1
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await service.ChangeCustomer(change(version=first.version, name="Countess"))
    assert refusal_of(error.value) == ("FAILED_PRECONDITION", "VERSION_STALE")
    assert (await customer(service)).name == "A. Lovelace"


async def test_a_billing_address_can_be_taken_back(service):
    await service.ChangeCustomer(change())
    await service.ChangeCustomer(change(billing_address=None))
    assert not (await customer(service)).HasField("billing_address")


async def test_what_is_removed_is_gone_and_may_be_removed_again(service):
    await service.PutDeliveryAddress(address())
    await service.PutPaymentMethod(card())
    for _ in range(2):
        await service.RemoveDeliveryAddress(
            pb.RemoveDeliveryAddressRequest(account_id="acc-1", delivery_address_id="home")
        )
        await service.RemovePaymentMethod(pb.RemovePaymentMethodRequest(account_id="acc-1", payment_method_id="card-1"))
    read = await customer(service)
    assert (list(read.delivery_addresses), list(read.payment_methods)) == ([], [])


async def test_one_has_no_more_addresses_and_cards_than_are_needed(service):
    for number in range(domain.MAX_ADDRESSES):
        await service.PutDeliveryAddress(address(f"a-{number}"))
    for number in range(domain.MAX_PAYMENT_METHODS):
        await service.PutPaymentMethod(card(f"c-{number}"))
    for call in (service.PutDeliveryAddress(address("one-more")), service.PutPaymentMethod(card("one-more"))):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call
        assert refusal_of(error.value) == ("FAILED_PRECONDITION", "TOO_MANY")
    await service.PutDeliveryAddress(address("a-0", label="Garden"))
    read = await customer(service)
    assert (len(read.delivery_addresses), len(read.payment_methods)) == (20, 10)
    assert read.delivery_addresses[0].label == "Garden"


WRONG = [
    ("GetCustomer", pb.GetCustomerRequest(account_id="nobody"), ("NOT_FOUND", "CUSTOMER_UNKNOWN")),
    ("GetCustomer", pb.GetCustomerRequest(), ("INVALID_ARGUMENT", "IDENTIFIER_INVALID")),
    ("ChangeCustomer", change(name=""), ("INVALID_ARGUMENT", "NAME_INVALID")),
    ("ChangeCustomer", change(email_address="ada"), ("INVALID_ARGUMENT", "EMAIL_ADDRESS_INVALID")),
    ("ChangeCustomer", change(locale="x"), ("INVALID_ARGUMENT", "LOCALE_INVALID")),
    ("ChangeCustomer", change(billing_address=Address()), ("INVALID_ARGUMENT", "ADDRESS_INVALID")),
    ("PutDeliveryAddress", address(label=""), ("INVALID_ARGUMENT", "LABEL_INVALID")),
    ("PutDeliveryAddress", address(""), ("INVALID_ARGUMENT", "IDENTIFIER_INVALID")),
    ("PutPaymentMethod", card(token=""), ("INVALID_ARGUMENT", "CARD_INVALID")),
]


async def test_what_is_wrong_has_a_code_and_a_reason(service):
    for method, request, expected in WRONG:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await getattr(service, method)(request)
        assert refusal_of(error.value) == expected, f"{method} {request}"


async def test_a_customer_is_read_from_the_cache_and_every_change_is_seen_at_once(service, database, cache):
    await service.ChangeCustomer(change())
    await service.PutPaymentMethod(card())
    assert (await customer(service)).name == "Ada Lovelace"
    await database.pool.execute("UPDATE customer SET name = 'changed behind the back of the service'")
    assert (await customer(service)).name == "Ada Lovelace"
    gone = pb.RemoveDeliveryAddressRequest(account_id="acc-1", delivery_address_id="home")
    for change_it, request, seen in (
        (service.PutDeliveryAddress, address(), 1),
        (service.RemoveDeliveryAddress, gone, 0),
        (service.PutDeliveryAddress, address("office"), 1),
    ):
        await change_it(request)
        assert len((await customer(service)).delivery_addresses) == seen
    request = pb.RemovePaymentMethodRequest(account_id="acc-1", payment_method_id="card-1")
    await service.RemovePaymentMethod(request)
    assert not (await customer(service)).payment_methods
    [key] = await cache.keys()
    assert key == f"{api.CUSTOMERS}:acc-1".encode()


async def test_no_token_of_a_card_is_in_the_cache(service, cache):
    await service.PutPaymentMethod(card(token="tok_of_ada_alone"))
    await service.GetCardToken(pb.GetCardTokenRequest(account_id="acc-1", payment_method_id="card-1"))
    [written] = [await cache.get(key) for key in await cache.keys()]
    assert b"4242" in written
    assert b"tok_of_ada_alone" not in written


async def test_who_was_erased_is_erased_from_the_cache(service, database, valkey, cache):
    await service.ChangeCustomer(change())
    await service.PutDeliveryAddress(address())
    before = [await cache.get(key) for key in await cache.keys()]
    assert b"Rosenweg" in before[0]
    customers = Cache(api.CUSTOMERS, lambda: valkey.url, registry=CollectorRegistry())
    on_account_closed = handlers(Outbox("/shop/customers", PUBLISHES), customers)[AccountClosed]
    for _ in range(2):
        async with database.transaction() as transaction:
            await on_account_closed(transaction, None, AccountClosed(account_id="acc-1"))
    await customers.put("acc-1", 1, before[0][16:])  # a reader that was slower than all that
    await customers.close()
    [left] = [await cache.get(key) for key in await cache.keys()]
    assert left[16:] == b""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await customer(service)
    assert refusal_of(error.value) == ("NOT_FOUND", "CUSTOMER_UNKNOWN")
