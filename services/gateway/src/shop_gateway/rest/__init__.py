"""REST for programs, below /v1."""

from starlette.routing import BaseRoute

from shop_gateway.gateway import Gateway
from shop_gateway.rest import articles, entry, me, orders, sessions
from shop_gateway.rest.operation import route

PREFIX = "/v1"
OPERATIONS = (
    *entry.OPERATIONS,
    *articles.OPERATIONS,
    *sessions.OPERATIONS,
    *me.OPERATIONS,
    *orders.OPERATIONS,
)


def routes(gateway: Gateway) -> list[BaseRoute]:
    """Return the routes of all operations."""
    return [route(gateway, operation) for operation in OPERATIONS]
