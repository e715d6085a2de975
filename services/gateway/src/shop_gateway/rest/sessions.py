"""Accounts and sessions of strangers: signing up, signing in, and what follows."""

from shop.identity.v1 import identity_pb2
from shop_gateway.rest.operation import Call, Operation, Replies, RestAnswer
from shop_gateway.rest.resource import Links, RequestBody, Resource, link
from shop_gateway.upstreams import WRITE

TOKENS = Resource(
    "Tokens",
    identity_pb2.Tokens,
    "The tokens of a session. The access token is the bearer token of other requests.",
    links={"refresh": "always", "signOut": "always", "account": "always"},
)
SIGN_UP = RequestBody(
    "SignUp",
    identity_pb2.SignUpRequest,
    "With what one will sign in.",
    ("email_address", "password"),
    example={"emailAddress": "grace@example.com", "password": "correct horse battery"},
)
SIGN_IN = RequestBody(
    "SignIn",
    identity_pb2.SignInRequest,
    "With what one signs in.",
    ("email_address", "password"),
    example={"emailAddress": "ada@example.com", "password": "correct horse battery"},
)
REFRESH = RequestBody(
    "Refresh",
    identity_pb2.RefreshRequest,
    "The newest refresh token of the session.",
    ("refresh_token",),
)
SIGN_OUT = RequestBody("SignOut", identity_pb2.SignOutRequest, "A refresh token of the session.", ("refresh_token",))


def _tokens(tokens: identity_pb2.Tokens) -> dict[str, object]:
    links: Links = {
        "refresh": link("/v1/sessions/refresh", method="POST"),
        "signOut": link("/v1/sessions/sign-out", method="POST"),
        "account": link("/v1/me"),
    }
    return TOKENS.document(tokens, links)


async def _sign_up(call: Call) -> RestAnswer:
    identity = call.gateway.upstreams.identity
    await identity.ask(identity.stub.SignUp, SIGN_UP.parse(call.body), within=WRITE)
    return RestAnswer({"_links": {"signIn": link("/v1/sessions", method="POST")}}, 202)


async def _sign_in(call: Call) -> RestAnswer:
    identity = call.gateway.upstreams.identity
    answer = await identity.ask(identity.stub.SignIn, SIGN_IN.parse(call.body), within=WRITE)
    return RestAnswer(_tokens(answer.tokens), 201)


async def _refresh(call: Call) -> RestAnswer:
    identity = call.gateway.upstreams.identity
    answer = await identity.ask(identity.stub.Refresh, REFRESH.parse(call.body), within=WRITE)
    return RestAnswer(_tokens(answer.tokens))


async def _sign_out(call: Call) -> RestAnswer:
    identity = call.gateway.upstreams.identity
    await identity.ask(identity.stub.SignOut, SIGN_OUT.parse(call.body), within=WRITE)
    return RestAnswer(status=204)


_IDENTITY = "shop.identity.v1.IdentityService"

OPERATIONS = (
    Operation(
        "signUp",
        "POST",
        "/v1/accounts",
        "Open an account",
        f"{_IDENTITY}/SignUp",
        _sign_up,
        (Replies(202, "The address has an account now, of whomever it is."),),
        body=SIGN_UP,
        secured=False,
        refusals=(503, 504),
    ),
    Operation(
        "signIn",
        "POST",
        "/v1/sessions",
        "Begin a session",
        f"{_IDENTITY}/SignIn",
        _sign_in,
        (Replies(201, "A session.", TOKENS),),
        body=SIGN_IN,
        secured=False,
        refusals=(503, 504),
    ),
    Operation(
        "refresh",
        "POST",
        "/v1/sessions/refresh",
        "Continue a session",
        f"{_IDENTITY}/Refresh",
        _refresh,
        (Replies(200, "The session goes on.", TOKENS),),
        body=REFRESH,
        secured=False,
        refusals=(503, 504),
    ),
    Operation(
        "signOut",
        "POST",
        "/v1/sessions/sign-out",
        "End a session",
        f"{_IDENTITY}/SignOut",
        _sign_out,
        (Replies(204, "There is no such session."),),
        body=SIGN_OUT,
        secured=False,
        refusals=(503, 504),
    ),
)
