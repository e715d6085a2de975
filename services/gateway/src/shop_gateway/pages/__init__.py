"""Pages for people. Their routes hang beside those of REST in `application.py`."""

from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import Scope

from shop_gateway.gateway import Gateway
from shop_gateway.problems import HttpProblem


def routes(gateway: Gateway) -> list[BaseRoute]:
    """Return the routes of all pages."""
    return []


def error_page(scope: Scope, problem: HttpProblem) -> Response:
    """Return what a person is shown when something cannot be done."""
    return problem.response()
