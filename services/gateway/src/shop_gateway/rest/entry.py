"""The entry: from here on there are links to everything."""

from starlette.responses import Response

from shop_gateway.rest import document
from shop_gateway.rest.articles import SEARCH_LINK
from shop_gateway.rest.operation import Call, Operation, Replies, RestAnswer
from shop_gateway.rest.resource import Links, link


async def _entry(call: Call) -> RestAnswer:
    links: Links = {
        "self": link("/v1/"),
        "articles": link("/v1/articles"),
        "categories": link("/v1/categories"),
        "search": SEARCH_LINK,
        "signUp": link("/v1/accounts", method="POST"),
        "signIn": link("/v1/sessions", method="POST"),
        "describedby": link("/v1/openapi.json"),
    }
    if call.principal is not None:
        links["me"] = link("/v1/me")
        links["orders"] = link("/v1/orders")
    return RestAnswer({"_links": links})


async def _document(call: Call) -> Response:
    return Response(document.text(), media_type="application/openapi+json", headers={"cache-control": "max-age=60"})


OPERATIONS = (
    Operation(
        "enter",
        "GET",
        "/v1/",
        "Begin here",
        "",
        _entry,
        (Replies(200, "Links to what whoever asks may do."),),
        secured=False,
    ),
    Operation(
        "getDocument",
        "GET",
        "/v1/openapi.json",
        "Read this document",
        "",
        _document,
        (Replies(200, "The document.", media_type="application/openapi+json"),),
        secured=False,
    ),
)
