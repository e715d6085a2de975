"""One request of a person: who it is, what is in the basket, and the answer with what the browser is to keep.

Made for each request by `site.py`; the pages of this package are given it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from shop_gateway.pages import rendering
from shop_gateway.pages.basket import Basket
from shop_gateway.pages.seals import Seals
from shop_gateway.pages.session import WebSession

VISITOR, SESSION, BASKET = "visitor", "session", "basket"
FORM_FIELD: Final = "form_proof"
_BASKET_KEPT = timedelta(days=30)
_VISITOR_KEPT = timedelta(days=30)
_LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?", re.IGNORECASE)


class SignInNeededError(Exception):
    """The page is for somebody who has signed in."""


@dataclass(slots=True)
class Visit:
    """A request, and what its answer changes in the browser."""

    request: Request
    seals: Seals
    visitor: str
    """Made up for a browser; the proofs in its forms are made of it."""
    session: WebSession | None
    basket: Basket
    unknown: Exception | None = None
    """Why it cannot be said at the moment who comes, although the browser has a session."""
    form: Mapping[str, str] = field(default_factory=dict)
    """What was sent, by the names of the fields; one that was not sent is not there."""
    changed: dict[str, tuple[str, timedelta]] = field(default_factory=dict)
    """Cookies to set, and for how long; an empty one is deleted."""

    @property
    def token(self) -> str | None:
        """Return the access token with which services are called; None for a visitor who has not signed in."""
        return None if self.session is None else self.session.access_token

    def signed_in(self) -> WebSession:
        """Return the session. Raises SignInNeededError without one, or why it is not known whether there is one."""
        if self.session is None:
            raise self.unknown or SignInNeededError
        return self.session

    def field(self, name: str) -> str:
        """Return what was typed into a field, without the space around it; empty when nothing was."""
        return self.form.get(name, "").strip()

    def asked(self, name: str) -> str:
        """Return a parameter of the address; empty when it is not there."""
        return self.request.query_params.get(name, "").strip()

    def keep_basket(self, basket: Basket) -> None:
        """Let the browser keep this basket."""
        self.basket = basket
        self.changed[BASKET] = (self.seals.seal(BASKET, basket.kept, _BASKET_KEPT), _BASKET_KEPT)

    def keep_session(self, session: WebSession) -> None:
        """Let the browser keep this session."""
        self.session = session
        self.changed[SESSION] = (self.seals.seal(SESSION, session.kept, session.lifetime), session.lifetime)

    def forget_session(self) -> None:
        """Let the browser forget the session."""
        self.session = None
        self.changed[SESSION] = ("", timedelta())

    def be(self, visitor: str) -> None:
        """Take another name for the visitor: forms of before are not taken any more."""
        self.visitor = visitor
        self.changed[VISITOR] = (self.seals.seal(VISITOR, visitor, _VISITOR_KEPT), _VISITOR_KEPT)

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        """Return a page for this visitor."""
        common = {
            "form_field": FORM_FIELD,
            "form_proof": self.seals.proof(FORM_FIELD, self.visitor),
            "is_signed_in": None if self.unknown else self.session is not None,
            "pieces": self.basket.count,
            "path": self.request.url.path,
        }
        return rendering.page(template, common | values, status)

    def go(self, path: str, **parameters: str) -> Response:
        """Return an answer that leads to another page."""
        target = f"{path}?{urlencode(parameters)}" if parameters else path
        return RedirectResponse(target, 303, {"cache-control": "no-store"})

    def answer(self, response: Response) -> Response:
        """Return the answer with the cookies that have changed."""
        secure = is_secure(self.request)
        for name, (value, lifetime) in self.changed.items():
            response.set_cookie(
                cookie_name(name, secure),
                value,
                max_age=int(lifetime.total_seconds()),
                path="/",
                secure=secure,
                httponly=True,
                samesite="lax",
            )
        return response


def is_secure(request: Request) -> bool:
    """Return whether cookies may go over TLS alone: everywhere but on the machine itself."""
    return not _LOOPBACK.fullmatch(request.headers.get("host", ""))


def cookie_name(name: str, secure: bool) -> str:
    """Return what a cookie is called: the prefix forbids that another host of the domain sets it."""
    return f"__Host-{name}" if secure else name
