"""What stands before every page: who comes, whether a form is one of ours, and where somebody signs in first."""

import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import parse_qsl

import grpc
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shop_gateway.gateway import Gateway
from shop_gateway.pages.basket import Basket
from shop_gateway.pages.compose import NOT_THERE, Composer
from shop_gateway.pages.seals import Seals
from shop_gateway.pages.session import Sessions, WebSession
from shop_gateway.pages.visit import (
    BASKET,
    FORM_FIELD,
    SESSION,
    VISITOR,
    SignInNeededError,
    Visit,
    cookie_name,
    is_secure,
)
from shop_gateway.problems import HttpError

FORM: Final = "application/x-www-form-urlencoded"
MAX_FIELDS = 100

Page = Callable[[Visit], Awaitable[Response]]


class Site:
    """Makes routes of pages and forms."""

    def __init__(self, gateway: Gateway) -> None:
        """Take the services of the gateway and its secret."""
        self.upstreams = gateway.upstreams
        self.streams = gateway.streams
        self.stops_within = gateway.stops_within
        self._limits = gateway.limits
        self.compose = Composer(gateway.runtime.registry)
        self.sessions = Sessions(gateway.upstreams)
        self.seals = Seals(gateway.settings.cookie_secret.get_secret_value().encode())

    def page(self, path: str, page: Page, form: Page | None = None) -> Route:
        """Return the route of a page that is read, and of the form that is sent to the same path."""

        async def read_or_sent(request: Request) -> Response:
            if form is not None and request.method == "POST":
                return await self._sent(request, form)
            return await self._answer(await self._visit(request), page)

        return Route(path, read_or_sent, methods=["GET"] if form is None else ["GET", "POST"])

    def form(self, path: str, form: Page) -> Route:
        """Return the route of a form that is sent to a path where no page is."""

        async def sent(request: Request) -> Response:
            return await self._sent(request, form)

        return Route(path, sent, methods=["POST"])

    async def _sent(self, request: Request, form: Page) -> Response:
        """Take a form: only from a page of ours, by the visitor who was given it."""
        _check_origin(request)
        visit = await self._visit(request)
        visit.form = await _fields(request)
        if not self.seals.proves(FORM_FIELD, visit.visitor, visit.field(FORM_FIELD)):
            raise HttpError(403, "FORM_EXPIRED", "This form is too old. Go back, load the page again, and repeat.")
        return await self._answer(visit, form)

    async def _answer(self, visit: Visit, page: Page) -> Response:
        try:
            response = await page(visit)
        except SignInNeededError:
            response = _to_sign_in(visit)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAUTHENTICATED or visit.session is None:
                raise
            visit.forget_session()
            response = _to_sign_in(visit)
        return visit.answer(response)

    async def _visit(self, request: Request) -> Visit:
        visitor = self._kept(request, VISITOR)
        visit = Visit(
            request,
            self.seals,
            visitor or "",
            WebSession.parse(self._kept(request, SESSION)),
            Basket.parse(self._kept(request, BASKET)),
        )
        if not visitor:
            visit.be(secrets.token_urlsafe(18))
        await self._refresh(visit)
        return visit

    async def _refresh(self, visit: Visit) -> None:
        """Let the session have an access token that is valid. Pages for everybody are shown without one, too."""
        if visit.session is None:
            return
        self._limits.take_for_subject(visit.session.account_id)
        try:
            fresh = await self.sessions.fresh(visit.session)
        except NOT_THERE as error:
            visit.session, visit.unknown = None, error
            return
        if fresh is None:
            visit.forget_session()
        elif fresh is not visit.session:
            visit.keep_session(fresh)

    def _kept(self, request: Request, name: str) -> Any:
        sealed = request.cookies.get(cookie_name(name, is_secure(request)))
        return None if not sealed else self.seals.open(name, sealed)


def _to_sign_in(visit: Visit) -> Response:
    read = visit.request.method == "GET"
    return visit.go("/sign-in", next=visit.request.url.path if read else "/account")


def _check_origin(request: Request) -> None:
    """Refuse a form of another site. Browsers say where a form comes from; who says nothing has to have the proof."""
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise HttpError(403, "ORIGIN_FOREIGN", "This form was sent by another site.")
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise HttpError(403, "ORIGIN_FOREIGN", "This form was sent by another site.")


async def _fields(request: Request) -> dict[str, str]:
    """Return what a form sent. Raises HttpError for what no form of ours sends."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise HttpError(415, "FORM_INVALID", f"A form is sent as {FORM}.")
    try:
        text = (await request.body()).decode("ascii")
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"))
    except ValueError:
        raise HttpError(400, "FORM_INVALID", "This form cannot be read.") from None
