"""The application of the gateway: all routes, inside what holds for each of them. Made by `assemble.py`."""

from starlette.responses import Response
from starlette.routing import Router
from starlette.types import ASGIApp, Scope

from shop_gateway import pages, rest
from shop_gateway.edge import Edge
from shop_gateway.gateway import Gateway
from shop_gateway.problems import HttpProblem


def application(gateway: Gateway) -> ASGIApp:
    """Return the application: REST below /v1, pages everywhere else."""
    routes = Router([*rest.routes(gateway), *pages.routes(gateway)], redirect_slashes=False)
    return Edge(routes, gateway, _shown)


def _shown(scope: Scope, problem: HttpProblem) -> Response:
    if scope["path"].startswith(rest.PREFIX):
        return problem.response()
    return pages.error_page(scope, problem)
