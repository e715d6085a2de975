"""Entity tags, and requests of clients that have an answer already (RFC 9110, 13). Used by `rest` and `pages`."""

import hashlib

from starlette.requests import Request
from starlette.responses import Response

_PICTURE = {
    "cache-control": "public, max-age=300",
    # Opened by itself it is a document of this origin: nothing in it may be carried out or fetched.
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
}


def etag(body: bytes) -> str:
    """Return the entity tag of a representation."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def client_has(request: Request, tag: str) -> bool:
    """Return whether the client says that it has the representation with this entity tag (`If-None-Match`)."""
    asked = [one.strip() for header in request.headers.getlist("if-none-match") for one in header.split(",")]
    return asked == ["*"] or tag in (one.removeprefix("W/") for one in asked)


def picture_response(request: Request, svg: str) -> Response:
    """Return the answer with a picture; 304 without it for a client that has it already."""
    body = svg.encode()
    headers = _PICTURE | {"etag": etag(body)}
    if client_has(request, headers["etag"]):
        return Response(None, 304, headers)
    return Response(body, headers=headers, media_type="image/svg+xml")
