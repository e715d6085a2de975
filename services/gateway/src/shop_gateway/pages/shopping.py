"""The basket and the check-out."""

import asyncio
import hashlib
import json
import secrets
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Final
from uuid import UUID, uuid5

from amends_chassis.domain import IdentifierInvalidError
from starlette.responses import Response
from starlette.routing import BaseRoute

from shop.customers.v1 import customers_pb2
from shop.orders.v1 import orders_pb2
from shop.types.v1.types_pb2 import Address
from shop_gateway.pages.articles import Articles, BasketLine, ShownArticle, total
from shop_gateway.pages.basket import Basket, BasketFullError
from shop_gateway.pages.compose import NOT_THERE, Part
from shop_gateway.pages.customers import Customers
from shop_gateway.pages.forms import ADDRESS, NO_MISTAKE, Mistake, address_in, mistake_in, number
from shop_gateway.pages.site import Site
from shop_gateway.pages.visit import Visit
from shop_gateway.upstreams import WRITE

ORDERS: Final = UUID("5f0c8f0e-6f5c-4d7c-9d54-5a0d6f0f8a11")
"""The name space of the ids of orders that are placed by the form."""
NEW: Final = "new"
"""Chosen where a saved address or card is not."""
SHOWN: Final = "shown"
"""The field that says which basket the form was shown for."""
BASKET_CHANGED: Final = Mistake("BASKET_CHANGED", "Your basket has changed. Please look at it again.", 409)
_AVAILABILITY_MISSING = "It is not known at the moment how many there are. You can order all the same."
_NAMES_MISSING = "Some names and prices are missing at the moment. You can order all the same."


@dataclass(frozen=True, slots=True)
class ShownBasket:
    """The basket with what is known about its articles."""

    lines: list[BasketLine]
    part: Part[list[ShownArticle]]
    short: Part[dict[str, int]]
    """How many there are of the articles of which there are too few."""


class ShoppingPages:
    """The pages from the basket to the order."""

    def __init__(self, site: Site) -> None:
        """Order at the services of the site."""
        self._site = site
        self._articles = Articles(site.upstreams)
        self._customers = Customers(site.upstreams)

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [
            self._site.page("/basket", self.basket, self.change),
            self._site.page("/checkout", self.checkout, self.order),
        ]

    async def basket(self, visit: Visit) -> Response:
        """Show the basket."""
        return await self._basket_page(visit)

    async def change(self, visit: Visit) -> Response:
        """Put pieces of an article into the basket, or change how many of it there are."""
        sku, pieces = visit.field("sku"), number(visit.field("pieces"))
        if not sku or pieces is None:
            return await self._basket_page(visit, "Say how many pieces you want, from 0 to 99.", 400)
        change = visit.basket.add if visit.field("what") == "add" else visit.basket.put
        try:
            visit.keep_basket(change(sku, pieces))
        except IdentifierInvalidError:
            return await self._basket_page(visit, "There is no such article.", 400)
        except BasketFullError:
            return await self._basket_page(visit, "The basket is full: it takes twenty different articles.", 409)
        return visit.go("/basket")

    async def checkout(self, visit: Visit) -> Response:
        """Show the form that places an order."""
        visit.signed_in()
        if not visit.basket.pieces:
            return visit.go("/basket")
        return await self._checkout_page(visit)

    async def order(self, visit: Visit) -> Response:
        """Place the order, once for each form that was shown."""
        account_id, key = visit.signed_in().account_id, visit.field("key")
        if not key:
            return visit.go("/basket")
        order_id = str(uuid5(ORDERS, f"{account_id}/{key}"))
        if visit.field(SHOWN) != _shown_as(visit.basket):  # since the form was shown, it was sent or the basket changed
            if await self._was_placed(visit, order_id):
                return visit.go(f"/orders/{order_id}")
            return await self._checkout_page(visit, BASKET_CHANGED) if visit.basket.pieces else visit.go("/basket")
        try:
            await self._place(visit, order_id)
        except NOT_THERE as error:
            mistake = mistake_in(error)
            if mistake.status == HTTPStatus.UNAUTHORIZED:
                raise
            if mistake.reason != "ORDER_REUSED":  # it was sent before, with another address or card: that is the order
                return await self._checkout_page(visit, mistake)
        visit.keep_basket(Basket())
        return visit.go(f"/orders/{order_id}")

    async def _place(self, visit: Visit, order_id: str) -> None:
        session, orders = visit.signed_in(), self._site.upstreams.orders
        customer = await self._customer_if_needed(visit)
        request = orders_pb2.PlaceOrderRequest(
            order_id=order_id,
            customer_id=session.account_id,
            lines=visit.basket.lines,
            card_token=await self._card_token(visit),
            address=_chosen_address(visit, customer),
        )
        await orders.ask(orders.stub.PlaceOrder, request, token=visit.token, within=WRITE)

    async def _was_placed(self, visit: Visit, order_id: str) -> bool:
        orders = self._site.upstreams.orders
        request = orders_pb2.GetOrderRequest(order_id=order_id)
        return await orders.find(orders.stub.GetOrder, request, token=visit.token) is not None

    async def _customer_if_needed(self, visit: Visit) -> customers_pb2.Customer | None:
        if visit.field("address") in ("", NEW):
            return None
        return await self._customers.read(visit)

    async def _card_token(self, visit: Visit) -> str:
        """Return the token of the chosen card, or the one that was typed."""
        if visit.field("card") in ("", NEW):
            return visit.field("card_token")
        return await self._customers.card_token(visit, visit.field("card"))

    async def _basket_page(self, visit: Visit, mistake: str = "", status: int = 200) -> Response:
        return visit.page("basket.html", status, basket=await self._shown(visit.basket), mistake=mistake)

    async def _checkout_page(self, visit: Visit, mistake: Mistake = NO_MISTAKE) -> Response:
        customer, basket = await asyncio.gather(
            self._site.compose.part(
                "customer",
                partial(self._customers.read, visit),
                missing="Your saved addresses and cards are missing at the moment. You can type them.",
            ),
            self._shown(visit.basket),
        )
        return visit.page(
            "checkout.html",
            mistake.status,
            basket=basket,
            total=total(basket.lines),
            customer=customer,
            key=visit.field("key") or secrets.token_urlsafe(18),
            shown=_shown_as(visit.basket),
            typed={name: visit.field(name) for name in (*ADDRESS, "address", "card", "card_token")},
            mistake=mistake.text,
        )

    async def _shown(self, basket: Basket) -> ShownBasket:
        """Read what is known about a basket: prices are those of orders, by which an order is priced."""
        part, skus = self._site.compose.part, list(basket.pieces)
        if not skus:
            return ShownBasket([], Part([]), Part({}))
        articles, short = await asyncio.gather(
            part(
                "basket",
                partial(self._articles.copies, skus),
                instead=partial(self._articles.each, skus),
                missing=_NAMES_MISSING,
            ),
            part("availability", partial(self._articles.short_of, dict(basket.pieces)), missing=_AVAILABILITY_MISSING),
        )
        known = {article.sku: article for article in articles.value or []}
        lines = [
            BasketLine(known.get(sku) or ShownArticle(sku, sku, None), pieces) for sku, pieces in basket.pieces.items()
        ]
        return ShownBasket(lines, articles, short)


def _shown_as(basket: Basket) -> str:
    """Return what a basket is known by, to whoever is shown it."""
    return hashlib.sha256(json.dumps(sorted(basket.kept.items())).encode()).hexdigest()


def _chosen_address(visit: Visit, customer: customers_pb2.Customer | None) -> Address:
    """Return the saved address that was chosen, or the one that was typed."""
    for saved in () if customer is None else customer.delivery_addresses:
        if saved.delivery_address_id == visit.field("address"):
            return saved.address
    return address_in(visit)
