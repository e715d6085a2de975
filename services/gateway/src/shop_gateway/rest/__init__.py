"""REST for programs, below /v1."""

from starlette.routing import BaseRoute

from shop_gateway.gateway import Gateway
from shop_gateway.rest import articles

PREFIX = "/v1"


def routes(gateway: Gateway) -> list[BaseRoute]:
    """Return the routes of all resources."""
    return articles.routes(gateway)
