"""shop.orders.v1.OrderService: parses requests, opens transactions, answers.

Assembled by `assemble.py`. Confirm is guarded: the barrier has opened its transaction and commits it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from uuid import uuid4

from amends_barrier import connection
from amends_chassis.database import Database
from amends_chassis.domain import IdentifierInvalidError, RefusedError, identifier
from amends_chassis.errors import (
    AlreadyExists,
    DomainError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
    answers,
)
from amends_chassis.pages import PageInvalidError, moment_of, page_size, page_token, parts_of
from amends_chassis.people import may_see, whose_alone
from amends_chassis.types import Context
from amends_events import Outbox
from amends_resilience import deadline
from google.protobuf.timestamp_pb2 import Timestamp

from shop.orders.v1 import orders_pb2 as pb
from shop.orders.v1 import orders_pb2_grpc
from shop.types.v1 import types_pb2
from shop_orders import articles, domain, store
from shop_orders.catalogue import Catalogue
from shop_orders.domain import Address, Line, Money, Order, OrderState
from shop_orders.order_process import OrderProcess
from shop_orders.settings import Settings

ERRORS: Mapping[type[RefusedError], type[DomainError]] = {
    IdentifierInvalidError: InvalidArgument,
    domain.LinesInvalid: InvalidArgument,
    domain.CardInvalid: InvalidArgument,
    domain.AddressInvalid: InvalidArgument,
    domain.PriceInvalid: InvalidArgument,
    domain.PriceMoved: FailedPrecondition,
    domain.PriceUnknown: FailedPrecondition,
    domain.CurrenciesMixed: FailedPrecondition,
    domain.TotalTooLarge: InvalidArgument,
    domain.OrderReused: AlreadyExists,
    domain.OrderUnknown: NotFound,
    domain.CustomerUnknown: NotFound,
    domain.OrderClosed: FailedPrecondition,
    domain.FulfilmentUnavailable: FailedPrecondition,
    domain.NeighbourAway: Unavailable,
    PageInvalidError: InvalidArgument,
}
STATES: Mapping[OrderState, "pb.OrderState.ValueType"] = {
    OrderState.PENDING: pb.ORDER_STATE_PENDING,
    OrderState.CONFIRMED: pb.ORDER_STATE_CONFIRMED,
    OrderState.REJECTED: pb.ORDER_STATE_REJECTED,
    OrderState.REFUNDED: pb.ORDER_STATE_REFUNDED,
}
FULFILMENTS = {known: fulfilment for fulfilment, known in store.FULFILMENTS.items()}
STAFF = "staff"
"""The role of those who may read everybody's orders."""
ANSWER_IN = timedelta(milliseconds=500)
"""So much of the caller's time is kept for the answer when it waits for the end of the saga."""
DEFAULT_WAIT = timedelta(seconds=10)
MAX_PAGE = 500
MAX_PAGE_BYTES = 1024 * 1024
"""A page of large orders ends here, well before an answer is larger than a client takes."""


class OrderService(orders_pb2_grpc.OrderServiceServicer):
    """Takes orders and keeps their life cycle."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        outbox: Outbox,
        orders: OrderProcess,
        catalogue: Catalogue | None,
    ) -> None:
        """`catalogue` owns prices; None: they are written here."""
        self._settings = settings
        self._database = database
        self._outbox = outbox
        self._orders = orders
        self._catalogue = catalogue

    async def PlaceOrder(self, request: pb.PlaceOrderRequest, context: Context) -> pb.PlaceOrderResponse:
        """Accept an order, start to fulfil it and, if asked to, wait for its end."""
        with answers(ERRORS):
            order_id = identifier(request.order_id or f"ord_{uuid4().hex}", "order_id")
            content = _content(request)
            if not may_see(content.customer_id):  # of staff, too: nobody orders in somebody else's name
                raise _unknown(content.customer_id)
            fulfilment = FULFILMENTS.get(request.fulfilment, self._settings.fulfilment)
            order = await self._orders.place(order_id, content, fulfilment)
            if request.wait:
                left = deadline.remaining(ANSWER_IN)
                order = await self._orders.wait(order, content.card_token, DEFAULT_WAIT if left is None else left)
            return pb.PlaceOrderResponse(order=_order(order))

    async def GetOrder(self, request: pb.GetOrderRequest, context: Context) -> pb.GetOrderResponse:
        """Read an order by its id."""
        with answers(ERRORS):
            order = await self._orders.read(identifier(request.order_id, "order_id"))
            if not may_see(order.customer_id, STAFF):
                raise domain.unknown(order.order_id)
            return pb.GetOrderResponse(order=_order(order))

    async def CancelOrder(self, request: pb.CancelOrderRequest, context: Context) -> pb.CancelOrderResponse:
        """Ask for the end of an order of one's own."""
        with answers(ERRORS):
            order = await self._orders.read(identifier(request.order_id, "order_id"))
            if not may_see(order.customer_id, STAFF):
                raise domain.unknown(order.order_id)
            return pb.CancelOrderResponse(order=_order(await self._orders.cancel(order)))

    async def ListOrders(self, request: pb.ListOrdersRequest, context: Context) -> pb.ListOrdersResponse:
        """Read a page of orders, newest first."""
        with answers(ERRORS):
            asked = request.customer_id or whose_alone(STAFF)
            customer_id = identifier(asked, "customer_id") if asked else None
            if customer_id is not None and not may_see(customer_id, STAFF):
                raise _unknown(customer_id)
            size, before = page_size(request.page_size, largest=MAX_PAGE), _before(request.page_token)
            async with self._database.transaction() as transaction:
                orders = await store.page(transaction, customer_id, before, size + 1)
        page = _fitting([_order(order) for order in orders[:size]])
        return pb.ListOrdersResponse(
            orders=page,
            next_page_token=_token_after(orders[len(page) - 1]) if len(orders) > len(page) else "",
        )

    async def Confirm(self, request: pb.ConfirmRequest, context: Context) -> pb.ConfirmResponse:
        """Complete an order; the last step of its saga."""
        with answers(ERRORS):
            await store.confirm(
                connection(),
                self._outbox,
                identifier(request.order_id, "order_id"),
                identifier(request.tracking_id, "tracking_id"),
                identifier(request.payment_id, "payment_id"),
            )
            return pb.ConfirmResponse()

    async def SetPrice(self, request: pb.SetPriceRequest, context: Context) -> pb.SetPriceResponse:
        """Set what an article costs, for clients of before catalog owned prices."""
        with answers(ERRORS):
            if not self._settings.serves_set_price:
                raise domain.PriceMoved("prices are set by shop.catalog.v1.CatalogService/SetPrice")
            sku = identifier(request.sku, "sku")
            price = domain.price(Money(request.price.currency, request.price.minor))
            version = None if self._catalogue is None else await self._catalogue.set_price(sku, price)
            async with self._database.transaction() as transaction:
                await articles.set_price(transaction, sku, price, version)
            return pb.SetPriceResponse()

    async def ListArticles(self, request: pb.ListArticlesRequest, context: Context) -> pb.ListArticlesResponse:
        """Read the copies of articles."""
        with answers(ERRORS):
            skus = [identifier(sku, "sku") for sku in request.skus]
            if len(skus) > articles.MAX_ARTICLES:
                raise domain.LinesInvalid(f"at most {articles.MAX_ARTICLES} articles can be asked for at once")
            async with self._database.transaction() as transaction:
                found = await articles.articles_of(transaction, skus)
        response = pb.ListArticlesResponse()
        for one in found:
            price = None if one.price is None else types_pb2.Money(currency=one.price.currency, minor=one.price.minor)
            response.articles.add(sku=one.sku, name=one.name, price=price, withdrawn=one.withdrawn)
        return response


def _unknown(customer_id: str) -> domain.CustomerUnknown:
    return domain.CustomerUnknown(f"there is no customer {customer_id}")


def _content(request: pb.PlaceOrderRequest) -> domain.Content:
    address = request.address
    return domain.content(
        request.customer_id,
        (Line(line.sku, line.quantity) for line in request.lines),
        request.card_token,
        Address(address.recipient, address.street, address.city, address.postal_code, address.country),
    )


def _order(order: Order) -> pb.Order:
    address = order.address
    placed_at = Timestamp()
    placed_at.FromDatetime(order.placed_at)
    has_papers = order.state is OrderState.CONFIRMED  # a choreographed order gets them one by one
    return pb.Order(
        order_id=order.order_id,
        customer_id=order.customer_id,
        lines=[types_pb2.Line(sku=line.sku, quantity=line.quantity) for line in order.lines],
        total=types_pb2.Money(currency=order.total.currency, minor=order.total.minor),
        address=types_pb2.Address(
            recipient=address.recipient,
            street=address.street,
            city=address.city,
            postal_code=address.postal_code,
            country=address.country,
        ),
        state=STATES[order.state],
        run_id=order.run_id or "",
        tracking_id=(has_papers and order.tracking_id) or "",
        payment_id=(has_papers and order.payment_id) or "",
        reason=order.reason or "",
        attention=order.attention or "",
        placed_at=placed_at,
        fulfilment=store.FULFILMENTS[order.fulfilment],
    )


def _fitting(orders: Sequence[pb.Order]) -> Sequence[pb.Order]:
    """Return the first orders, as many as fit into a page."""
    sizes = accumulate(order.ByteSize() for order in orders)
    return orders[: max(1, sum(size <= MAX_PAGE_BYTES for size in sizes))]


def _before(token: str) -> tuple[datetime, str] | None:
    key = parts_of(token, 2)
    return None if key is None else (moment_of(key[0]), key[1])


def _token_after(order: Order) -> str:
    return page_token(order.placed_at.isoformat(), order.order_id)
