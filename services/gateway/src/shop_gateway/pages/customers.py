"""What pages read of the customer who has signed in, and write."""

from shop.customers.v1 import customers_pb2 as pb
from shop_gateway.pages.visit import Visit
from shop_gateway.upstreams import WRITE, Upstreams


class Customers:
    """Asks the customers service for whoever has signed in. Raises what `Upstream.ask` raises."""

    def __init__(self, upstreams: Upstreams) -> None:
        """Ask this service."""
        self._customers = upstreams.customers

    async def read(self, visit: Visit) -> pb.Customer:
        """Read the customer; one without anything while the service has not heard of the account."""
        account_id, service = visit.signed_in().account_id, self._customers
        request = pb.GetCustomerRequest(account_id=account_id)
        found = await service.find(service.stub.GetCustomer, request, token=visit.token)
        return pb.Customer(account_id=account_id) if found is None else found.customer

    async def card_token(self, visit: Visit, payment_method_id: str) -> str:
        """Read the token of a saved card."""
        service = self._customers
        request = pb.GetCardTokenRequest(account_id=visit.signed_in().account_id, payment_method_id=payment_method_id)
        return (await service.ask(service.stub.GetCardToken, request, token=visit.token)).card_token

    async def change(self, visit: Visit, name: str, email_address: str) -> None:
        """Write the name and the address for messages; what else is known of the customer stays."""
        known, service = await self.read(visit), self._customers
        request = pb.ChangeCustomerRequest(
            account_id=known.account_id,
            version=known.version,
            name=name,
            email_address=email_address,
            locale=known.locale,
            billing_address=known.billing_address if known.HasField("billing_address") else None,
        )
        await service.ask(service.stub.ChangeCustomer, request, token=visit.token, within=WRITE)

    async def put_address(self, visit: Visit, address: pb.DeliveryAddress) -> None:
        """Save a delivery address."""
        service = self._customers
        request = pb.PutDeliveryAddressRequest(account_id=visit.signed_in().account_id, delivery_address=address)
        await service.ask(service.stub.PutDeliveryAddress, request, token=visit.token, within=WRITE)

    async def remove_address(self, visit: Visit, delivery_address_id: str) -> None:
        """Remove a delivery address, if it is there."""
        service = self._customers
        request = pb.RemoveDeliveryAddressRequest(
            account_id=visit.signed_in().account_id, delivery_address_id=delivery_address_id
        )
        await service.ask(service.stub.RemoveDeliveryAddress, request, token=visit.token, within=WRITE)
