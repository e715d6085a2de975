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
    paths = dict.fromkeys(one.path for one in OPERATIONS)
    return [route(gateway, [one for one in OPERATIONS if one.path == path]) for path in paths]
