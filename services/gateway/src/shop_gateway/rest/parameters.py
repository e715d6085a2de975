"""Parameters that several operations have."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from shop_gateway.rest.operation import Call, Parameter

IDENTIFIER: Mapping[str, Any] = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}$"}
ORDER_ID: Mapping[str, Any] = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$"}
UUID: Mapping[str, Any] = {"type": "string", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"}
LARGEST_PAGE = 100

SKU = Parameter("sku", "path", "What the article is ordered by.", IDENTIFIER, True, "tea-assam")
CATEGORY = Parameter(
    "category", "query", "Only of this category.", {"type": "string", "pattern": "^[a-z0-9-]{1,40}$"}, example="tea"
)
PAGE_SIZE = Parameter(
    "pageSize", "query", "How many at most.", {"type": "integer", "minimum": 1, "maximum": LARGEST_PAGE}, example=20
)
PAGE_TOKEN = Parameter(
    "pageToken",
    "query",
    "Where to go on. Follow the link `next` instead of making one.",
    {"type": "string", "pattern": "^[A-Za-z0-9_=-]{1,1000}$"},
)
IF_MATCH = Parameter(
    "If-Match",
    "header",
    "The entity tag of what is to be changed: it is refused with 412 when it has changed meanwhile.",
    {"type": "string", "pattern": '^("?[1-9][0-9]{0,17}"?|[*])$'},
    example='"1"',
)


def part(value: str) -> str:
    """Return a text as one part of a path."""
    return quote(value, safe="")


def page_link(call: Call, token: str) -> str:
    """Return the address of the next page of what is asked for."""
    asked = {name: value for name, value in call.request.query_params.items() if name != "pageToken"}
    return f"{call.request.url.path}?{urlencode(asked | {'pageToken': token})}"


def this_page(call: Call) -> str:
    """Return the address of what is asked for."""
    query = call.request.url.query
    return call.request.url.path + (f"?{query}" if query else "")
