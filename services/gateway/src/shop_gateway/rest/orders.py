"""Orders of whoever asks.

An order is placed under an id that its client has a hold of: one of its own (PUT), or one that is made of the
idempotency key and the account (POST). So whoever lost the answer asks again, and it is the same order; what is
answered until the order has ended says nothing that changes, and is the same byte for byte.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from amends_chassis.errors import NotFound, ResourceExhausted
from amends_resilience import deadline
from starlette.responses import Response, StreamingResponse

from shop.orders.v1 import orders_pb2
from shop_gateway.conditional import etag
from shop_gateway.problems import problem
from shop_gateway.rest.operation import Call, Operation, Parameter, Replies, RestAnswer, encoded
from shop_gateway.rest.parameters import ORDER_ID, PAGE_SIZE, PAGE_TOKEN, UUID, page_link, part, this_page
from shop_gateway.rest.resource import Links, RequestBody, Resource, link
from shop_gateway.upstreams import CALL_ERRORS, WRITE, is_away

PENDING = orders_pb2.ORDER_STATE_PENDING
LONGEST_WAIT = 8
"""Seconds."""
LOOK_FIRST, LOOK_LAST = timedelta(milliseconds=50), timedelta(seconds=1)
"""The pauses between two looks at an order whose progress is told, the first and the longest."""
BEAT = timedelta(seconds=10)
"""So often a stream says something, so that nobody between takes it for dead."""
LONGEST_STREAM = timedelta(minutes=5)
"""After this a stream ends, and its client comes back by itself."""
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*([0-9]+)(?:$|[,;\s])")

_HIDDEN = ("attention", "customer_id")
ORDER = Resource(
    "Order",
    orders_pb2.Order,
    "An order as it stands.",
    hidden=_HIDDEN,
    links={
        "self": "always",
        "progress": "while it is PENDING",
        "cancel": "while it is PENDING",
        "orders": "always",
    },
)
RECEIPT = Resource(
    "Receipt",
    orders_pb2.Order,
    "An order as it was accepted: what never changes of it.",
    hidden=(*_HIDDEN, "state", "run_id", "tracking_id", "payment_id", "reason"),
    links={"self": "always", "progress": "always"},
)
ORDERS = Resource(
    "Orders",
    orders_pb2.ListOrdersResponse,
    "A page of orders, newest first.",
    hidden=("next_page_token",),
    links={"self": "always", "next": "when there is another page", "place": "always"},
    embedded={"orders": ORDER},
)
PLACE_ORDER = RequestBody(
    "PlaceOrder",
    orders_pb2.PlaceOrderRequest,
    "What is ordered, how it is paid, and where it goes.",
    ("lines", "card_token", "address"),
    example={
        "lines": [{"sku": "tea-assam", "quantity": 2}],
        "cardToken": "tok_visa",
        "address": {
            "recipient": "Ada Lovelace",
            "street": "Rosenweg 3",
            "city": "Berlin",
            "postalCode": "10115",
            "country": "DE",
        },
    },
)


def order_links(order: orders_pb2.Order) -> Links:
    """Return what its customer may do with an order now."""
    address = f"/v1/orders/{part(order.order_id)}"
    links: Links = {"self": link(address), "orders": link("/v1/orders")}
    if order.state == PENDING:
        links["progress"] = link(f"{address}/progress")
        links["cancel"] = link(f"{address}/cancel", method="POST")
    return links


def _document(order: orders_pb2.Order) -> dict[str, Any]:
    return ORDER.document(order, order_links(order))


async def _order_of(call: Call, order_id: str) -> orders_pb2.Order:
    """Return an order of whoever asks. Raises NotFound for one of somebody else."""
    orders = call.gateway.upstreams.orders
    asked = orders_pb2.GetOrderRequest(order_id=order_id)
    order = (await orders.ask(orders.stub.GetOrder, asked, token=call.caller.token)).order
    if order.customer_id != call.caller.subject:
        raise NotFound("ORDER_UNKNOWN", f"There is no order {order_id}.")
    return order


async def _get(call: Call) -> RestAnswer:
    return RestAnswer(_document(await _order_of(call, call.parameters["orderId"])))


async def _list(call: Call) -> RestAnswer:
    orders = call.gateway.upstreams.orders
    asked = orders_pb2.ListOrdersRequest(
        customer_id=call.caller.subject,
        page_size=call.parameters["pageSize"] or 0,
        page_token=call.parameters["pageToken"] or "",
    )
    page = await orders.ask(orders.stub.ListOrders, asked, token=call.caller.token)
    links: Links = {"self": link(this_page(call)), "place": link("/v1/orders", method="POST")}
    if page.next_page_token:
        links["next"] = link(page_link(call, page.next_page_token))
    return RestAnswer({"orders": [_document(order) for order in page.orders], "_links": links})


async def _post(call: Call) -> RestAnswer:
    key = call.parameters["Idempotency-Key"]
    return await _place(call, str(uuid5(NAMESPACE_URL, f"{call.caller.issuer}/{call.caller.subject}/{key}")))


async def _put(call: Call) -> RestAnswer:
    return await _place(call, call.parameters["orderId"])


async def _place(call: Call, order_id: str) -> RestAnswer:
    """Place an order, or find that it was placed; who prefers to wait is answered with its end, if it comes in time."""
    request = PLACE_ORDER.parse(call.body)
    request.order_id, request.customer_id = order_id, call.caller.subject
    orders, token = call.gateway.upstreams.orders, call.caller.token
    wait = preferred_wait(call.parameters["Prefer"])
    order = (await orders.ask(orders.stub.PlaceOrder, request, token=token, within=WRITE)).order
    if wait is not None and order.state == PENDING:
        order = await _ended(call, order, timedelta(seconds=wait))
    address = f"/v1/orders/{part(order_id)}"
    headers = {"location": address} | ({} if wait is None else {"preference-applied": f"wait={wait}"})
    if wait is not None and order.state != PENDING:
        return RestAnswer(_document(order), 201, headers)
    receipt = RECEIPT.document(order, {"self": link(address), "progress": link(f"{address}/progress")})
    return RestAnswer(receipt, 202, headers)


def preferred_wait(prefer: str | None) -> int | None:
    """Return how many seconds a client prefers to wait (RFC 7240), at most LONGEST_WAIT; None when it does not."""
    found = _WAIT.search(prefer or "")
    return None if found is None else min(int(found[1]), LONGEST_WAIT)


async def _ended(call: Call, order: orders_pb2.Order, within: timedelta) -> orders_pb2.Order:
    """Return an order when it has ended, or as it was known last: after a time, or when nobody can tell any more."""
    loop = asyncio.get_running_loop()
    try:
        left = deadline.timeout(within, timedelta(seconds=1))
        end, pause = loop.time() + left.total_seconds(), LOOK_FIRST.total_seconds()
        while order.state == PENDING and loop.time() + pause < end:
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LOOK_LAST.total_seconds())
            order = await _order_of(call, order.order_id)
    except CALL_ERRORS as error:
        if not is_away(error):
            raise
    return order


async def _cancel(call: Call) -> RestAnswer:
    order = await _order_of(call, call.parameters["orderId"])
    orders = call.gateway.upstreams.orders
    asked = orders_pb2.CancelOrderRequest(order_id=order.order_id)
    answer = await orders.ask(orders.stub.CancelOrder, asked, token=call.caller.token, within=WRITE)
    return RestAnswer(_document(answer.order), 202, {"location": f"/v1/orders/{part(order.order_id)}"})


async def _progress(call: Call) -> Response:
    gateway = call.gateway
    with deadline.scope(gateway.settings.request_timeout):
        order = await _order_of(call, call.parameters["orderId"])
    seen = call.request.headers.get("last-event-id", "")
    if gateway.streams.is_full(call.caller.subject):
        raise ResourceExhausted("TOO_MANY_STREAMS", "You are told of as many orders as can be; read this one instead.")
    headers = {"cache-control": "no-store"}
    if call.request.method == "HEAD":
        return Response(None, headers=headers, media_type="text/event-stream")
    return StreamingResponse(_told(call, order, seen), media_type="text/event-stream", headers=headers)


async def _told(call: Call, order: orders_pb2.Order, seen: str) -> AsyncIterator[bytes]:
    """Tell each change of an order as an event, until it has ended; an end that the client knows is told again.

    A client that comes back says what it was told last (`Last-Event-ID`).
    """
    with call.gateway.streams.one_of(call.caller.subject):
        loop = asyncio.get_running_loop()
        end, spoken, pause = loop.time() + LONGEST_STREAM.total_seconds(), loop.time(), LOOK_FIRST
        while True:
            body = encoded(_document(order))
            tag = etag(body).strip('"')
            if tag != seen or order.state != PENDING:
                seen, spoken, pause = tag, loop.time(), LOOK_FIRST
                yield _event(tag, "order" if order.state == PENDING else "end", body)
            elif loop.time() - spoken > BEAT.total_seconds():
                spoken = loop.time()
                yield b": still there\n\n"
            if order.state != PENDING or loop.time() > end or await call.gateway.stops_within(pause):
                return
            pause = min(pause * 1.5, LOOK_LAST)
            try:
                with deadline.scope(call.gateway.settings.request_timeout):
                    order = await _order_of(call, order.order_id)
            except Exception as error:  # the stream has begun, so its status is told; the client asks again
                told = problem(error)
                if told.status < 500:
                    yield _event("", "problem", encoded(told.document()))
                    return


def _event(tag: str, name: str, body: bytes) -> bytes:
    identity = f"id: {tag}\n".encode() if tag else b""
    return identity + f"event: {name}\ndata: ".encode() + body + b"\n\n"


_ID = Parameter("orderId", "path", "The order.", ORDER_ID, True)
_CHOSEN_ID = Parameter(
    "orderId", "path", "A UUID that the client has made up.", UUID, True, "2f0d9a52-6b9e-4a0a-9d3e-0f5c1f2f7a11"
)
_KEY = Parameter(
    "Idempotency-Key",
    "header",
    "Names this order among all of the account's, so that it can be sent again: the same key is the same order.",
    {"type": "string", "pattern": "^[!-~]{1,200}$"},
    True,
    "basket-1",
)
_PREFER = Parameter(
    "Prefer",
    "header",
    "`wait=N`: to be answered when the order has ended, or after N seconds (RFC 7240).",
    {"type": "string", "pattern": "^[ -~]{0,200}$"},
    example="wait=5",
    is_list=True,
)
_PLACED = {
    "order": {"operationId": "getOrder", "parameters": {"orderId": "$response.body#/orderId"}},
    "cancel": {"operationId": "cancelOrder", "parameters": {"orderId": "$response.body#/orderId"}},
}
_REPLIES = (
    Replies(
        202,
        "The order is accepted, and being fulfilled. The same request has the same answer.",
        RECEIPT,
        {"Location": "The order.", "Preference-Applied": "How long was waited."},
        _PLACED,
    ),
    Replies(
        201,
        "The order has ended within the time that the client preferred to wait.",
        ORDER,
        {"Location": "The order.", "Preference-Applied": "How long was waited at most."},
        _PLACED,
    ),
)

OPERATIONS = (
    Operation(
        "listOrders",
        "GET",
        "/v1/orders",
        "List one's orders",
        "shop.orders.v1.OrderService/ListOrders",
        _list,
        (Replies(200, "A page of orders.", ORDERS),),
        (PAGE_SIZE, PAGE_TOKEN),
        refusals=(404, 503, 504),
    ),
    Operation(
        "placeOrder",
        "POST",
        "/v1/orders",
        "Place an order",
        "shop.orders.v1.OrderService/PlaceOrder",
        _post,
        _REPLIES,
        (_KEY, _PREFER),
        PLACE_ORDER,
        refusals=(409, 422, 503, 504),
    ),
    Operation(
        "putOrder",
        "PUT",
        "/v1/orders/{orderId}",
        "Place an order under an id of one's own",
        "shop.orders.v1.OrderService/PlaceOrder",
        _put,
        _REPLIES,
        (_CHOSEN_ID, _PREFER),
        PLACE_ORDER,
        refusals=(409, 422, 503, 504),
    ),
    Operation(
        "getOrder",
        "GET",
        "/v1/orders/{orderId}",
        "Read an order",
        "shop.orders.v1.OrderService/GetOrder",
        _get,
        (Replies(200, "The order.", ORDER, {"ETag": "Of this representation, for `If-None-Match`."}),),
        (_ID,),
        refusals=(404, 503, 504),
    ),
    Operation(
        "followOrder",
        "GET",
        "/v1/orders/{orderId}/progress",
        "Be told each change of an order until it has ended",
        "",
        _progress,
        (
            Replies(
                200,
                "Server-sent events: `order` with the order each time it changes, `end` when it has ended, `problem`.",
                media_type="text/event-stream",
            ),
        ),
        (_ID,),
        refusals=(404, 503, 504),
    ),
    Operation(
        "cancelOrder",
        "POST",
        "/v1/orders/{orderId}/cancel",
        "Ask for the end of an order that is not fulfilled yet",
        "shop.orders.v1.OrderService/CancelOrder",
        _cancel,
        (
            Replies(
                202,
                "It is asked for; the order says how it ends.",
                ORDER,
                {"Location": "The order."},
                {"order": {"operationId": "getOrder", "parameters": {"orderId": "$response.body#/orderId"}}},
            ),
        ),
        (_ID,),
        refusals=(404, 409, 503, 504),
    ),
)
