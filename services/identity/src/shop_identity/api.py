"""shop.identity.v1.IdentityService: parses requests, checks access tokens, answers. Made by `assemble.py`."""

from collections.abc import Mapping

from amends_chassis.context import current_call
from amends_chassis.domain import RefusedError
from amends_chassis.errors import (
    DomainError,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unauthenticated,
    answers,
)
from amends_chassis.timestamps import timestamp
from amends_chassis.types import Context

from shop.identity.v1 import identity_pb2 as pb
from shop.identity.v1 import identity_pb2_grpc
from shop_identity import domain
from shop_identity.accounts import Accounts
from shop_identity.domain import Session, TokenInvalid
from shop_identity.refresh import RefreshToken
from shop_identity.tokens import AccessTokens

ERRORS: Mapping[type[RefusedError], type[DomainError]] = {
    domain.EmailAddressInvalid: InvalidArgument,
    domain.PasswordInvalid: InvalidArgument,
    domain.CredentialsWrong: Unauthenticated,
    domain.TooManyAttempts: ResourceExhausted,
    domain.TooBusy: ResourceExhausted,
    domain.SessionEnded: Unauthenticated,
    domain.TokenInvalid: Unauthenticated,
    domain.AccountUnknown: NotFound,
}
STAFF = "staff"
_BEARER = "bearer "


class IdentityService(identity_pb2_grpc.IdentityServiceServicer):
    """Keeps accounts and hands out tokens."""

    def __init__(self, accounts: Accounts, tokens: AccessTokens, staff: frozenset[str]) -> None:
        """Serve; accounts whose ids are in `staff` have the role of that name."""
        self._accounts = accounts
        self._tokens = tokens
        self._staff = staff

    async def SignUp(self, request: pb.SignUpRequest, context: Context) -> pb.SignUpResponse:
        """Open an account."""
        with answers(ERRORS):
            await self._accounts.sign_up(request.email_address, request.password)
        return pb.SignUpResponse()

    async def SignIn(self, request: pb.SignInRequest, context: Context) -> pb.SignInResponse:
        """Begin a session."""
        with answers(ERRORS):
            session, token = await self._accounts.sign_in(request.email_address, request.password)
        return pb.SignInResponse(tokens=self._tokens_of(session, token))

    async def Refresh(self, request: pb.RefreshRequest, context: Context) -> pb.RefreshResponse:
        """Let a session go on."""
        with answers(ERRORS):
            session, token = await self._accounts.refresh(request.refresh_token)
        return pb.RefreshResponse(tokens=self._tokens_of(session, token))

    async def SignOut(self, request: pb.SignOutRequest, context: Context) -> pb.SignOutResponse:
        """End a session."""
        await self._accounts.sign_out(request.refresh_token)
        return pb.SignOutResponse()

    async def SignOutEverywhere(
        self, request: pb.SignOutEverywhereRequest, context: Context
    ) -> pb.SignOutEverywhereResponse:
        """End all sessions of the caller's account."""
        with answers(ERRORS):
            await self._accounts.sign_out_everywhere(self._caller())
        return pb.SignOutEverywhereResponse()

    async def GetAccount(self, request: pb.GetAccountRequest, context: Context) -> pb.GetAccountResponse:
        """Read the caller's account."""
        with answers(ERRORS):
            account = await self._accounts.read(self._caller())
        opened_at = timestamp(account.opened_at)
        return pb.GetAccountResponse(
            account=pb.Account(account_id=account.account_id, email_address=account.email_address, opened_at=opened_at)
        )

    async def CloseAccount(self, request: pb.CloseAccountRequest, context: Context) -> pb.CloseAccountResponse:
        """Close the caller's account."""
        with answers(ERRORS):
            await self._accounts.close(self._caller(), request.password)
        return pb.CloseAccountResponse()

    def _caller(self) -> str:
        """Return the account of the access token that came with the call. Raises TokenInvalid."""
        call = current_call()
        given = (call and call.value("authorization")) or ""
        if not given.lower().startswith(_BEARER):
            raise TokenInvalid("the metadata `authorization` must be Bearer and an access token")
        return self._tokens.account_of(given[len(_BEARER) :])

    def _tokens_of(self, session: Session, token: RefreshToken) -> pb.Tokens:
        roles = (STAFF,) if session.account_id in self._staff else ()
        access = self._tokens.sign(session.account_id, session.signed_in_at, roles)
        return pb.Tokens(
            account_id=session.account_id,
            access_token=access.text,
            access_token_expires_at=timestamp(access.expires_at),
            refresh_token=token.text,
            refresh_token_expires_at=timestamp(session.expires_at),
        )
