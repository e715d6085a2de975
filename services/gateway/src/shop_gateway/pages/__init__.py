"""Pages for people. Their routes hang beside those of REST in `application.py`.

    site.py      who comes, and whether a form is ours      compose.py    parts of a page, each with a deadline
    visit.py     one request and its cookies                rendering.py  templates and headers
    session.py   the tokens of who has signed in            seals.py      what a browser keeps is believed again

The other modules have the pages: `catalogue`, `shopping`, `orders`, `account`, `signing`.
"""

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

from shop_gateway.gateway import Gateway
from shop_gateway.pages import rendering
from shop_gateway.pages.account import AccountPages
from shop_gateway.pages.catalogue import CataloguePages
from shop_gateway.pages.orders import OrderPages
from shop_gateway.pages.shopping import ShoppingPages
from shop_gateway.pages.signing import SigningPages
from shop_gateway.pages.site import Site
from shop_gateway.problems import HttpError, HttpProblem


def routes(gateway: Gateway) -> list[BaseRoute]:
    """Return the routes of all pages."""
    site = Site(gateway)
    parts = (CataloguePages(site), ShoppingPages(site), OrderPages(site), AccountPages(site), SigningPages(site))
    return [
        Route("/static/{version}/{name}", _static, methods=["GET"]),
        *(one for part in parts for one in part.routes()),
    ]


def error_page(scope: Scope, problem: HttpProblem) -> Response:
    """Return what a person is shown when something cannot be done."""
    values = {"problem": problem, "is_signed_in": None, "pieces": None, "path": scope["path"]}
    response = rendering.page("problem.html", values, problem.status)
    response.headers.update(problem.needed_headers)
    return response


async def _static(request: Request) -> Response:
    """Answer with a file that its address names together with its version."""
    name = request.path_params["name"]
    if rendering.VERSIONS.get(name) != request.path_params["version"]:
        raise HttpError(404, "ROUTE_UNKNOWN", "There is nothing at this address.")
    return FileResponse(rendering.STATIC / name, headers={"cache-control": "public, max-age=31536000, immutable"})
