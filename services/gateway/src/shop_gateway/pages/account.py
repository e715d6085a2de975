"""The page of an account: addresses, letters, and its end. Each part is another service's, and may be missing."""

import asyncio
from collections.abc import Awaitable
from functools import partial
from http import HTTPStatus
from uuid import uuid4

from starlette.responses import Response
from starlette.routing import BaseRoute

from shop.customers.v1 import customers_pb2
from shop.identity.v1 import identity_pb2
from shop.marketing.v1 import marketing_pb2
from shop_gateway.pages.compose import NOT_THERE
from shop_gateway.pages.customers import Customers
from shop_gateway.pages.forms import ADDRESS, NO_MISTAKE, Mistake, address_in, mistake_in
from shop_gateway.pages.site import Site
from shop_gateway.pages.visit import Visit
from shop_gateway.upstreams import WRITE

WORDING = "newsletter-1"
"""Names the sentence beside the check box, as marketing keeps it with the consent."""
DONE = {
    "details": "Your name and e-mail address are saved.",
    "address": "The address is saved.",
    "removed": "The address is removed.",
    "letters": "We have noted whether you want letters.",
}


class AccountPages:
    """The pages of somebody's account."""

    def __init__(self, site: Site) -> None:
        """Ask the services of the site, as whoever has signed in."""
        self._site = site
        self._customers = Customers(site.upstreams)

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [
            self._site.page("/account", self.show),
            self._site.form("/account/details", self.save_details),
            self._site.form("/account/addresses", self.save_address),
            self._site.form("/account/addresses/remove", self.remove_address),
            self._site.form("/account/letters", self.save_letters),
            self._site.page("/account/close", self.ask_to_close, self.close),
        ]

    async def show(self, visit: Visit) -> Response:
        """Show the account."""
        return await self._page(visit)

    async def save_details(self, visit: Visit) -> Response:
        """Save the customer's name and where messages go."""
        name, email_address = visit.field("name"), visit.field("email_address")
        return await self._done(visit, "details", self._customers.change(visit, name, email_address))

    async def save_address(self, visit: Visit) -> Response:
        """Save one more delivery address."""
        address = customers_pb2.DeliveryAddress(
            delivery_address_id=uuid4().hex,
            label=visit.field("label") or visit.field("street"),
            address=address_in(visit),
        )
        return await self._done(visit, "address", self._customers.put_address(visit, address))

    async def remove_address(self, visit: Visit) -> Response:
        """Remove a delivery address."""
        removing = self._customers.remove_address(visit, visit.field("address"))
        return await self._done(visit, "removed", removing)

    async def save_letters(self, visit: Visit) -> Response:
        """Write down whether the customer wants campaigns."""
        marketing = self._site.upstreams.marketing
        request = marketing_pb2.SetConsentRequest(
            account_id=visit.signed_in().account_id,
            purpose=marketing_pb2.PURPOSE_EMAIL,
            granted=visit.field("letters") == "yes",
            wording=WORDING,
        )
        saving = marketing.ask(marketing.stub.SetConsent, request, token=visit.token, within=WRITE)
        return await self._done(visit, "letters", saving)

    async def ask_to_close(self, visit: Visit) -> Response:
        """Ask for the password before the account is closed."""
        visit.signed_in()
        return visit.page("close.html", mistake="")

    async def close(self, visit: Visit) -> Response:
        """Close the account for good."""
        visit.signed_in()
        identity = self._site.upstreams.identity
        request = identity_pb2.CloseAccountRequest(password=visit.form.get("password", ""))
        try:
            await identity.ask(identity.stub.CloseAccount, request, token=visit.token, within=WRITE)
        except NOT_THERE as error:
            mistake = mistake_in(error)
            if mistake.status == HTTPStatus.UNAUTHORIZED and mistake.reason != "CREDENTIALS_WRONG":
                raise
            return visit.page("close.html", mistake.status, mistake=mistake.text)
        visit.forget_session()
        return visit.page("closed.html")

    async def _done(self, visit: Visit, done: str, work: Awaitable[object]) -> Response:
        """Wait for a change and go back to the account, or show it with what was refused."""
        try:
            visit.signed_in()
            await work
        except NOT_THERE as error:
            mistake = mistake_in(error)
            if mistake.status == HTTPStatus.UNAUTHORIZED:
                raise
            return await self._page(visit, mistake)
        return visit.go("/account", done=done)

    async def _page(self, visit: Visit, mistake: Mistake = NO_MISTAKE) -> Response:
        visit.signed_in()
        part = self._site.compose.part
        account, customer, letters = await asyncio.gather(
            part(
                "account",
                partial(self._account, visit),
                missing="It cannot be shown at the moment with which address you sign in.",
            ),
            part(
                "customer",
                partial(self._customers.read, visit),
                missing="Your name and addresses are missing at the moment. You can order all the same.",
            ),
            part(
                "letters",
                partial(self._letters, visit),
                missing="It is not known at the moment whether you get our letters.",
            ),
        )
        return visit.page(
            "account.html",
            mistake.status,
            account=account,
            customer=customer,
            letters=letters,
            typed={name: visit.field(name) for name in (*ADDRESS, "label")},
            mistake=mistake.text,
            done=DONE.get(visit.asked("done"), ""),
        )

    async def _account(self, visit: Visit) -> identity_pb2.Account:
        identity = self._site.upstreams.identity
        request = identity_pb2.GetAccountRequest()
        return (await identity.ask(identity.stub.GetAccount, request, token=visit.token)).account

    async def _letters(self, visit: Visit) -> marketing_pb2.Customer:
        """Read what marketing knows; a customer without consent while it has not heard of the account."""
        marketing, account_id = self._site.upstreams.marketing, visit.signed_in().account_id
        request = marketing_pb2.GetCustomerRequest(account_id=account_id)
        found = await marketing.find(marketing.stub.GetCustomer, request, token=visit.token)
        return marketing_pb2.Customer(account_id=account_id) if found is None else found.customer
