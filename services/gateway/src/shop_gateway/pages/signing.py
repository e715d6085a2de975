"""Signing up, in and out. Passwords go to identity and nowhere else."""

import secrets
from contextlib import suppress
from dataclasses import replace

import structlog
from starlette.responses import Response
from starlette.routing import BaseRoute

from shop.identity.v1 import identity_pb2 as pb
from shop_gateway.pages.compose import NOT_THERE
from shop_gateway.pages.customers import Customers
from shop_gateway.pages.forms import NO_MISTAKE, Mistake, local, mistake_in
from shop_gateway.pages.session import WebSession
from shop_gateway.pages.site import Site
from shop_gateway.pages.visit import Visit
from shop_gateway.upstreams import WRITE

_log = structlog.get_logger(__name__)

_HAS_ACCOUNT = "You could not be signed in. If you have an account, sign in with its password."


class SigningPages:
    """The pages by which somebody becomes known."""

    def __init__(self, site: Site) -> None:
        """Ask identity."""
        self._site = site
        self._identity = site.upstreams.identity
        self._customers = Customers(site.upstreams)

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [
            self._site.page("/sign-up", self.ask_up, self.up),
            self._site.page("/sign-in", self.ask_in, self.sign_in),
            self._site.form("/sign-out", self.out),
        ]

    async def ask_up(self, visit: Visit) -> Response:
        """Show the form for an account."""
        return _form(visit, "sign-up.html")

    async def up(self, visit: Visit) -> Response:
        """Open an account and sign in to it."""
        request = pb.SignUpRequest(email_address=visit.field("email_address"), password=visit.form.get("password", ""))
        try:
            await self._identity.ask(self._identity.stub.SignUp, request, within=WRITE)
            await self._begin(visit)
        except NOT_THERE as error:
            mistake = mistake_in(error)
            if mistake.reason == "CREDENTIALS_WRONG":  # the answer to SignUp does not say who has an account
                mistake = replace(mistake, text=_HAS_ACCOUNT)
            return _form(visit, "sign-up.html", mistake)
        try:  # so that letters about orders find their way from the first order on
            await self._customers.change(visit, visit.field("name"), visit.field("email_address"))
        except NOT_THERE as error:
            _log.info("page.sign_up.customer_missing", error=mistake_in(error).reason)
        return visit.go(local(visit.field("next")))

    async def ask_in(self, visit: Visit) -> Response:
        """Show the form to sign in."""
        return _form(visit, "sign-in.html")

    async def sign_in(self, visit: Visit) -> Response:
        """Begin a session."""
        try:
            await self._begin(visit)
        except NOT_THERE as error:
            return _form(visit, "sign-in.html", mistake_in(error))
        return visit.go(local(visit.field("next")))

    async def out(self, visit: Visit) -> Response:
        """End the session: here at once, and at identity when that can be reached."""
        if visit.session is not None:
            request = pb.SignOutRequest(refresh_token=visit.session.refresh_token)
            with suppress(*NOT_THERE):
                await self._identity.ask(self._identity.stub.SignOut, request)
            visit.forget_session()
        visit.be(secrets.token_urlsafe(18))
        return visit.go("/")

    async def _begin(self, visit: Visit) -> None:
        request = pb.SignInRequest(email_address=visit.field("email_address"), password=visit.form.get("password", ""))
        answer = await self._identity.ask(self._identity.stub.SignIn, request, within=WRITE)
        visit.keep_session(WebSession.of(answer.tokens))
        visit.be(secrets.token_urlsafe(18))


def _form(visit: Visit, template: str, mistake: Mistake = NO_MISTAKE) -> Response:
    typed = {name: visit.field(name) for name in ("name", "email_address")}
    leads_to = local(visit.field("next") or visit.asked("next") or "/")
    return visit.page(template, mistake.status, mistake=mistake.text, typed=typed, leads_to=leads_to)
