"""shop.customers.v1.CustomerService: parses requests, opens transactions, answers, and remembers customers.

Assembled by `__main__.py`. Whoever changes a customer tells the cache after the commit. Tokens of cards are not in it.
"""

from collections.abc import Mapping

from amends_cache import Cache, OriginBusyError, Versioned
from amends_chassis.database import Database
from amends_chassis.domain import IdentifierInvalidError, RefusedError, identifier
from amends_chassis.errors import DomainError, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, answers
from amends_chassis.people import may_see
from amends_chassis.types import Context
from amends_events import Outbox

from shop.customers.v1 import customers_pb2 as pb
from shop.customers.v1 import customers_pb2_grpc
from shop.types.v1 import types_pb2
from shop_customers import domain, store
from shop_customers.domain import Address, Customer, Details

ERRORS: Mapping[type[RefusedError], type[DomainError]] = {
    IdentifierInvalidError: InvalidArgument,
    domain.NameInvalid: InvalidArgument,
    domain.EmailAddressInvalid: InvalidArgument,
    domain.LocaleInvalid: InvalidArgument,
    domain.AddressInvalid: InvalidArgument,
    domain.LabelInvalid: InvalidArgument,
    domain.CardInvalid: InvalidArgument,
    domain.TooMany: FailedPrecondition,
    domain.VersionStale: FailedPrecondition,
    domain.CustomerUnknown: NotFound,
    domain.PaymentMethodUnknown: NotFound,
}


CUSTOMERS = "customers:customer:v1"
"""The prefix of customers in the cache. It grows when they are written otherwise."""
STAFF = "staff"
"""The role of those who may read about every customer."""


class CustomerService(customers_pb2_grpc.CustomerServiceServicer):
    """Keeps customers as orders need them."""

    def __init__(self, database: Database, outbox: Outbox, customers: Cache) -> None:
        self._database = database
        self._outbox = outbox
        self._customers = customers

    async def GetCustomer(self, request: pb.GetCustomerRequest, context: Context) -> pb.GetCustomerResponse:
        """Read a customer."""
        with answers(ERRORS):
            return pb.GetCustomerResponse(customer=await self._customer(_own(request.account_id, STAFF)))

    async def ChangeCustomer(self, request: pb.ChangeCustomerRequest, context: Context) -> pb.ChangeCustomerResponse:
        """Replace what a customer says about itself."""
        with answers(ERRORS):
            account_id, details = _own(request.account_id), _details(request)
            async with self._database.transaction() as transaction:
                customer = await store.change(transaction, self._outbox, account_id, request.version, details)
        return pb.ChangeCustomerResponse(customer=await self._changed(customer))

    async def PutDeliveryAddress(
        self, request: pb.PutDeliveryAddressRequest, context: Context
    ) -> pb.PutDeliveryAddressResponse:
        """Add or replace a delivery address."""
        with answers(ERRORS):
            account_id, wanted = _own(request.account_id), request.delivery_address
            to = domain.delivery_address(wanted.delivery_address_id, wanted.label, _address(wanted.address))
            async with self._database.transaction() as transaction:
                customer = await store.put_delivery_address(transaction, account_id, to)
        await self._changed(customer)
        return pb.PutDeliveryAddressResponse()

    async def RemoveDeliveryAddress(
        self, request: pb.RemoveDeliveryAddressRequest, context: Context
    ) -> pb.RemoveDeliveryAddressResponse:
        """Remove a delivery address."""
        with answers(ERRORS):
            account_id = _own(request.account_id)
            delivery_address_id = identifier(request.delivery_address_id, "delivery_address_id")
            async with self._database.transaction() as transaction:
                customer = await store.remove_delivery_address(transaction, account_id, delivery_address_id)
        await self._changed(customer)
        return pb.RemoveDeliveryAddressResponse()

    async def PutPaymentMethod(
        self, request: pb.PutPaymentMethodRequest, context: Context
    ) -> pb.PutPaymentMethodResponse:
        """Add or replace a payment method."""
        with answers(ERRORS):
            account_id, wanted = _own(request.account_id), request.payment_method
            method = domain.payment_method(wanted.payment_method_id, wanted.brand, wanted.last_four)
            token = domain.card_token(request.card_token)
            async with self._database.transaction() as transaction:
                customer = await store.put_payment_method(transaction, account_id, method, token)
        await self._changed(customer)
        return pb.PutPaymentMethodResponse()

    async def RemovePaymentMethod(
        self, request: pb.RemovePaymentMethodRequest, context: Context
    ) -> pb.RemovePaymentMethodResponse:
        """Remove a payment method."""
        with answers(ERRORS):
            account_id = _own(request.account_id)
            payment_method_id = identifier(request.payment_method_id, "payment_method_id")
            async with self._database.transaction() as transaction:
                customer = await store.remove_payment_method(transaction, account_id, payment_method_id)
        await self._changed(customer)
        return pb.RemovePaymentMethodResponse()

    async def GetCardToken(self, request: pb.GetCardTokenRequest, context: Context) -> pb.GetCardTokenResponse:
        """Read the token of a payment method."""
        with answers(ERRORS):
            account_id = _own(request.account_id)
            payment_method_id = identifier(request.payment_method_id, "payment_method_id")
            async with self._database.transaction() as transaction:
                token = await store.card_token_of(transaction, account_id, payment_method_id)
        return pb.GetCardTokenResponse(card_token=token)

    async def _customer(self, account_id: str) -> pb.Customer:
        """Read a customer through the cache. Raises CustomerUnknown, ResourceExhausted."""

        async def load() -> Versioned | None:
            try:
                async with self._database.transaction() as transaction:
                    customer = await store.customer_of(transaction, account_id)
            except domain.CustomerUnknown:
                return None
            return Versioned(customer.revision, _written_customer(customer).SerializeToString())

        try:
            data = await self._customers.get(account_id, load)
        except OriginBusyError as error:
            raise ResourceExhausted("CUSTOMERS_BUSY", "Too many read customers that are not cached.") from error
        if not data:
            raise _unknown(account_id)
        return pb.Customer.FromString(data)

    async def _changed(self, customer: Customer) -> pb.Customer:
        """Tell the cache of a change that is committed, and return the customer as it is answered."""
        written = _written_customer(customer)
        await self._customers.put(customer.account_id, customer.revision, written.SerializeToString())
        return written


def _unknown(account_id: str) -> domain.CustomerUnknown:
    return domain.CustomerUnknown(f"account {account_id} has no customer")


def _own(account_id: str, *roles: str) -> str:
    """Return the account of a request, if it is the caller's or they have one of `roles`. Raises CustomerUnknown."""
    identifier(account_id, "account_id")
    if not may_see(account_id, *roles):
        raise _unknown(account_id)
    return account_id


def _details(request: pb.ChangeCustomerRequest) -> Details:
    billing = domain.address(_address(request.billing_address)) if request.HasField("billing_address") else None
    return domain.details(request.name, request.email_address, request.locale, billing)


def _address(value: types_pb2.Address) -> Address:
    return Address(value.recipient, value.street, value.city, value.postal_code, value.country)


def _written_customer(customer: Customer) -> pb.Customer:
    details = customer.details
    return pb.Customer(
        account_id=customer.account_id,
        version=customer.version,
        name=details.name,
        email_address=details.email_address,
        locale=details.locale,
        billing_address=None if details.billing_address is None else _written(details.billing_address),
        delivery_addresses=[
            pb.DeliveryAddress(
                delivery_address_id=one.delivery_address_id, label=one.label, address=_written(one.address)
            )
            for one in customer.delivery_addresses
        ],
        payment_methods=[
            pb.PaymentMethod(payment_method_id=one.payment_method_id, brand=one.brand, last_four=one.last_four)
            for one in customer.payment_methods
        ],
    )


def _written(address: Address) -> types_pb2.Address:
    return types_pb2.Address(
        recipient=address.recipient,
        street=address.street,
        city=address.city,
        postal_code=address.postal_code,
        country=address.country,
    )
