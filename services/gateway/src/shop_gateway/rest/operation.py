"""Operations: what can be asked of a resource over HTTP, and how an answer is made.

An operation names its path, its parameters, its body and what it answers; its handler calls the services behind. From
the same declaration come the route (here) and the OpenAPI document (tools/openapi.py), by whose schemas a request is
checked before the handler sees it.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from amends_chassis.errors import InvalidArgument, Unauthenticated
from amends_chassis.people import Principal
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shop_gateway.conditional import client_has, etag
from shop_gateway.gateway import Gateway
from shop_gateway.problems import HttpError
from shop_gateway.rest.document import Schema, schema_of_body, schema_of_parameter
from shop_gateway.rest.resource import RequestBody, Resource

HAL = "application/hal+json"
NOTHING_KEPT = "no-store"
"""What a cache may do with what is somebody's own."""
_BEARER = "bearer "
_READS = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter in the path, the query or a header."""

    name: str
    place: str
    description: str
    schema: Mapping[str, Any]
    required: bool = False
    example: Any = None
    is_list: bool = False
    """Whether a header may stand several times, as one list (RFC 9110, 5.3)."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose parameters and body fit their schemas."""

    gateway: Gateway
    request: Request
    parameters: Mapping[str, Any]
    body: Mapping[str, Any]
    principal: Principal | None

    @property
    def caller(self) -> Principal:
        """Return who asks, in an operation that needs to know."""
        assert self.principal is not None
        return self.principal


@dataclass(frozen=True, slots=True)
class RestAnswer:
    """What a handler answers with."""

    document: Any = None
    """What is sent as JSON; None: nothing."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    keep: str = NOTHING_KEPT
    """What caches may do with it (`cache-control`)."""


@dataclass(frozen=True, slots=True)
class Replies:
    """What an operation answers with when it does what it is for."""

    status: int
    description: str
    resource: Resource | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Which operation is next, for the document: by name."""
    media_type: str = HAL


Endpoint = Callable[[Request], Awaitable[Response]]
OperationHandler = Callable[[Call], Awaitable[RestAnswer | Response]]


@dataclass(frozen=True, slots=True)
class Operation:
    """What can be asked by one method at one path."""

    name: str
    """operationId."""
    method: str
    path: str
    summary: str
    rpc: str
    """The method behind it, as package.Service/Method: the document has its description; empty: none."""
    handler: OperationHandler
    replies: tuple[Replies, ...]
    parameters: tuple[Parameter, ...] = ()
    body: RequestBody | None = None
    secured: bool = True
    """Whether only who has signed in may ask."""
    refusals: tuple[int, ...] = ()
    """Statuses with which it may be refused, beyond those of every operation."""


def route(gateway: Gateway, operations: Sequence[Operation]) -> Route:
    """Return the route of the operations of one path."""
    endpoints = {one.method: _endpoint(gateway, one) for one in operations}
    if "GET" in endpoints:
        endpoints["HEAD"] = endpoints["GET"]

    async def endpoint(request: Request) -> Response:
        return await endpoints[request.method](request)

    return Route(operations[0].path, endpoint, methods=list(endpoints), name=operations[0].name)


def _endpoint(gateway: Gateway, operation: Operation) -> Endpoint:
    """Return what answers requests of an operation."""
    schemas = {one.name: schema_of_parameter(operation.name, one.name) for one in operation.parameters}
    body_schema = None if operation.body is None else schema_of_body(operation.name)

    async def endpoint(request: Request) -> Response:
        if not operation.secured and (kept := _kept(gateway, request)):
            return kept
        principal = await _principal(gateway, request, operation.secured)
        parameters = {one.name: _parameter(request, one, schemas[one.name]) for one in operation.parameters}
        _refuse_unknown(request, operation)
        body = {} if body_schema is None else await _body(request, body_schema)
        answer = await operation.handler(Call(gateway, request, parameters, body, principal))
        return answer if isinstance(answer, Response) else respond(gateway, request, answer)

    return endpoint


async def _principal(gateway: Gateway, request: Request, secured: bool) -> Principal | None:
    """Return who asks; None for a stranger. Raises Unauthenticated when that may not be, or for a wrong token."""
    headers = request.headers.getlist("authorization")
    if len(headers) > 1:
        raise Unauthenticated("TOKEN_MALFORMED", "A request has one access token.")
    header = "".join(headers)
    if header[: len(_BEARER)].lower() != _BEARER:
        if secured or header:
            raise Unauthenticated("TOKEN_MISSING", "This needs an access token, as a bearer token.")
        return None
    principal = await gateway.tokens.verify(header[len(_BEARER) :].strip())
    gateway.limits.take_for_subject(principal.subject)
    return principal


def _parameter(request: Request, parameter: Parameter, schema: Schema) -> Any:
    """Return the value of a parameter; None when it is not given. Raises InvalidArgument."""
    match parameter.place:
        case "path":
            values = [unquote(request.path_params[parameter.name])]
        case "query":
            values = request.query_params.getlist(parameter.name)
        case _:
            values = request.headers.getlist(parameter.name)
            values = [", ".join(values)] if values and parameter.is_list else values
    if not values:
        if parameter.required:
            raise InvalidArgument("PARAMETER_MISSING", f"{parameter.name} must be given.")
        return None
    if len(values) > 1:
        raise InvalidArgument("PARAMETER_INVALID", f"{parameter.name} must be given once.")
    value = schema.read(values[0])
    if wrong := schema.wrong(value):
        raise InvalidArgument("PARAMETER_INVALID", f"{parameter.name} {wrong}.")
    return value


def _refuse_unknown(request: Request, operation: Operation) -> None:
    known = {one.name for one in operation.parameters if one.place == "query"}
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        raise InvalidArgument("PARAMETER_UNKNOWN", f"There is no parameter {unknown[0][:100]!r} here.")


async def _body(request: Request, schema: Schema) -> Mapping[str, Any]:
    """Return the body of a request, which fits its schema. Raises InvalidArgument, HttpError."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise HttpError(415, "MEDIA_TYPE_UNSUPPORTED", "The body must be application/json.")
    try:
        text = (await request.body()).decode()
        said = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:  # and bytes that are no UTF-8
        raise InvalidArgument("BODY_UNREADABLE", "The body is no JSON whose members have different names.") from error
    if wrong := schema.wrong(said):
        raise InvalidArgument("BODY_INVALID", f"The body {wrong}.")
    checked: Mapping[str, Any] = said
    return checked


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name stands twice")
    return made


def _kept(gateway: Gateway, request: Request) -> Response | None:
    """Return the answer that everybody gets, if it is kept and whoever asks does not want another one."""
    headers = request.headers
    if request.method not in _READS or "authorization" in headers or "no-cache" in headers.get("cache-control", ""):
        return None
    found = gateway.kept.find(_address(request))
    if found is None:
        return None
    kept, age = found
    told = {"cache-control": kept.keep, "etag": kept.etag, "age": str(age)}
    if client_has(request, kept.etag):
        return Response(None, 304, told)
    return Response(kept.body, 200, told, HAL)


def _address(request: Request) -> str:
    query = request.scope["query_string"].decode("latin-1")
    return f"{request.scope['path']}?{query}"


def respond(gateway: Gateway, request: Request, answer: RestAnswer) -> Response:
    """Return an answer as it is sent; 304 without a body for a client that has it already."""
    headers = {"cache-control": answer.keep, **answer.headers}
    if answer.document is None:
        return Response(None, answer.status, headers)
    body = encoded(answer.document)
    if request.method in _READS and answer.status == 200:
        headers.setdefault("etag", etag(body))
        gateway.kept.keep(_address(request), body, headers["etag"], answer.keep)
        if client_has(request, headers["etag"]):
            return Response(None, 304, headers)
    return Response(body, answer.status, headers, HAL)


def encoded(document: Any) -> bytes:
    """Return a document as JSON."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
