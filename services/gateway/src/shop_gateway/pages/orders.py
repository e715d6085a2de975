"""The pages of orders: one, with its progress as it happens, and all of a customer's."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Final
from urllib.parse import unquote

import grpc
from amends_chassis.errors import NotFound, ResourceExhausted
from amends_resilience import deadline
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute

from shop.notifications.v1 import notifications_pb2
from shop.orders.v1 import orders_pb2 as pb
from shop_gateway.pages.articles import Articles
from shop_gateway.pages.compose import NOT_THERE
from shop_gateway.pages.rendering import ORDER_STATES, segment
from shop_gateway.pages.session import EARLY
from shop_gateway.pages.site import Site
from shop_gateway.pages.visit import Visit
from shop_gateway.upstreams import WRITE

PAGE = 20
WHY: Final = {
    "OUT_OF_STOCK": "There is not enough left of what you ordered.",
    "SKU_UNKNOWN": "There is nothing left of what you ordered.",
    "CARD_DECLINED": "Your card was declined.",
    "INSUFFICIENT_FUNDS": "Your card does not cover the price.",
    "CARD_UNKNOWN": "The payment provider does not know your card.",
    "PROCESSING_ERROR": "The payment provider could not charge your card.",
    "NOT_SERVED": "No carrier of ours goes to your address.",
    "NO_SLOT": "No carrier has room for your parcel at the moment.",
    "ADDRESS_INVALID": "The carrier cannot read your address.",
    "CANCEL": "You cancelled it.",
}
"""Why an order was rejected, by what is in the reason that the services give."""
LOOK_EVERY: Final = timedelta(milliseconds=300)
"""How often an order is looked at for a page that shows its progress."""
STREAM_FOR: Final = EARLY
"""So long one answer tells of progress, for the access token lasts no longer for sure; then the browser asks again."""
SILENCE: Final = timedelta(seconds=10)
"""After so long without news something is sent all the same, so that nobody between closes the connection."""


class OrderPages:
    """The pages of orders."""

    def __init__(self, site: Site) -> None:
        """Show the orders of whoever has signed in."""
        self._site = site
        self._articles = Articles(site.upstreams)

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [
            self._site.page("/orders", self.all),
            self._site.page("/orders/{order_id}", self.one),
            self._site.page("/orders/{order_id}/progress", self.progress),
            self._site.form("/orders/{order_id}/cancel", self.cancel),
        ]

    async def all(self, visit: Visit) -> Response:
        """Show the customer's orders, the newest first."""
        orders, account_id = self._site.upstreams.orders, visit.signed_in().account_id
        request = pb.ListOrdersRequest(customer_id=account_id, page_size=PAGE, page_token=visit.asked("page"))
        listed = await orders.ask(orders.stub.ListOrders, request, token=visit.token)
        return visit.page("orders.html", orders=listed.orders, next_page=listed.next_page_token)

    async def one(self, visit: Visit) -> Response:
        """Show an order."""
        visit.signed_in()
        order_id = unquote(visit.request.path_params["order_id"])
        order, letters = await asyncio.gather(
            self._read(visit, order_id),
            self._site.compose.part(
                "messages",
                partial(self._letters, visit, order_id),
                missing="It is not known at the moment what we have written to you about this order.",
            ),
        )
        skus = [line.sku for line in order.lines]
        names = await self._site.compose.part(
            "names",
            partial(self._articles.copies, skus),
            instead=partial(self._articles.each, skus),
            missing="The names of the articles are missing at the moment.",
        )
        return visit.page(
            "order.html",
            order=order,
            letters=letters,
            why=_why(order),
            attention=_attention(order),
            names={article.sku: article.name for article in names.value or ()},
            names_missing=names.missing,
            is_pending=order.state == pb.ORDER_STATE_PENDING,
        )

    async def progress(self, visit: Visit) -> Response:
        """Tell of an order's progress, as server-sent events, until it has ended."""
        visit.signed_in()
        order = await self._read(visit, unquote(visit.request.path_params["order_id"]))
        if self._site.streams.is_full(visit.signed_in().account_id):
            raise ResourceExhausted("TOO_MANY_STREAMS", "Too many pages watch orders now; load the page again.")
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        if visit.request.method == "HEAD":
            return Response(None, headers=headers, media_type="text/event-stream")
        return StreamingResponse(self._events(visit, order), media_type="text/event-stream", headers=headers)

    async def cancel(self, visit: Visit) -> Response:
        """Ask that an order is not fulfilled; whether that is still possible its page tells."""
        visit.signed_in()
        orders, order_id = self._site.upstreams.orders, unquote(visit.request.path_params["order_id"])
        request = pb.CancelOrderRequest(order_id=(await self._read(visit, order_id)).order_id)
        try:
            await orders.ask(orders.stub.CancelOrder, request, token=visit.token, within=WRITE)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:  # it has ended meanwhile
                raise
        return visit.go(f"/orders/{segment(order_id)}")

    async def _events(self, visit: Visit, order: pb.Order) -> AsyncIterator[str]:
        """Yield an event for each change of an order."""
        with self._site.streams.one_of(visit.signed_in().account_id):
            async for event in self._changes(visit, order):
                yield event

    async def _changes(self, visit: Visit, order: pb.Order) -> AsyncIterator[str]:
        clock = asyncio.get_running_loop().time
        told, told_at, end = "", clock(), clock() + STREAM_FOR.total_seconds()
        while clock() < end:
            news = json.dumps(_news(order), separators=(",", ":"))
            if news != told:
                told, told_at = news, clock()
                yield f"event: order\ndata: {news}\n\n"
            elif clock() - told_at > SILENCE.total_seconds():
                told_at = clock()
                yield ": nothing new\n\n"
            if order.state != pb.ORDER_STATE_PENDING or await self._site.stops_within(LOOK_EVERY):
                return
            with suppress(*NOT_THERE):  # it is looked at again; the page says what it knew last
                order = await self._read(visit, order.order_id)

    async def _read(self, visit: Visit, order_id: str) -> pb.Order:
        """Read an order of whoever has signed in. Raises NotFound for one of somebody else."""
        orders = self._site.upstreams.orders
        request = pb.GetOrderRequest(order_id=order_id)
        with deadline.scope(timedelta(seconds=2)):
            order = (await orders.ask(orders.stub.GetOrder, request, token=visit.token)).order
        if order.customer_id != visit.signed_in().account_id:
            raise NotFound("ORDER_UNKNOWN", f"There is no order {order_id}.")
        return order

    async def _letters(self, visit: Visit, order_id: str) -> Sequence[notifications_pb2.Message]:
        notifications = self._site.upstreams.notifications
        request = notifications_pb2.ListMessagesRequest(
            customer_id=visit.signed_in().account_id, order_id=order_id, page_size=PAGE
        )
        answer = await notifications.ask(notifications.stub.ListMessages, request, token=visit.token)
        return answer.messages


def _why(order: pb.Order) -> str:
    """Return why an order was not fulfilled, in words for its customer; empty for any other order."""
    if order.state != pb.ORDER_STATE_REJECTED:
        return ""
    words = (sentence for code, sentence in WHY.items() if code in order.reason)
    return next(words, "A service of ours did not answer in time. Please order again.")


def _attention(order: pb.Order) -> str:
    """Return that somebody looks at an order; what exactly they have to decide is no matter of its customer."""
    return "Somebody of the shop is looking at your order." if order.attention else ""


def _news(order: pb.Order) -> dict[str, Any]:
    return {
        "state": ORDER_STATES.get(order.state, "In progress"),
        "attention": _attention(order),
        "ended": order.state != pb.ORDER_STATE_PENDING,
    }
