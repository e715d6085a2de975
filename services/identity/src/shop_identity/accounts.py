"""What happens when somebody signs up, signs in, comes back or leaves. Called by `api`.

A password is checked outside of any transaction. The try is counted before, and committed, so that tries at the same
time count too; a password that is right takes its count back.
"""

import asyncio
from datetime import timedelta
from uuid import uuid4

import structlog
from amends_chassis.database import Database
from amends_events import Outbox

from shop_identity import domain, store
from shop_identity.domain import (
    Account,
    AccountUnknown,
    CredentialsWrong,
    EmailAddressInvalid,
    Session,
    SessionEnded,
    TooManyAttempts,
)
from shop_identity.keys import KeySecret
from shop_identity.passwords import Passwords
from shop_identity.refresh import RefreshToken
from shop_identity.settings import Settings

SIGN_IN, SIGN_UP = "sign-in", "sign-up"
REUSED = "session.token_reused"
_EXPIRE_EVERY = timedelta(minutes=10)
_log = structlog.get_logger(__name__)


class Accounts:
    """Accounts and their sessions."""

    def __init__(
        self, database: Database, outbox: Outbox, passwords: Passwords, secret: KeySecret, settings: Settings
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._passwords = passwords
        self._secret = secret
        self._idle = settings.session_idle
        self._lifetime = settings.session_lifetime

    async def sign_up(self, email_address: str, password: str) -> None:
        """Open an account. When the address has one nothing happens, after as much work.

        Raises EmailAddressInvalid, PasswordInvalid, TooManyAttempts, TooBusy.
        """
        address = domain.email_address(email_address)
        wanted = domain.new_password(password, address)
        await self._begin_attempt(SIGN_UP, address)
        password_hash = await self._passwords.hash(wanted)
        async with self._database.transaction() as transaction:
            await store.open_account(transaction, self._outbox, f"acc_{uuid4().hex}", address, password_hash)

    async def sign_in(self, email_address: str, password: str) -> tuple[Session, RefreshToken]:
        """Begin a session. Raises CredentialsWrong, TooManyAttempts, TooBusy."""
        account = await self._with_password(email_address, password)
        token = RefreshToken.new()
        async with self._database.transaction() as transaction:
            session = await store.begin_session(transaction, account, token, self._idle)
            await store.forget_attempts(transaction, self._secret.hide(SIGN_IN, account.email_address))
        if session is None:
            raise CredentialsWrong("address or password is wrong")
        return session, token

    async def refresh(self, text: str) -> tuple[Session, RefreshToken]:
        """Let a session go on with a new token. One that is not its newest ends it. Raises SessionEnded."""
        token = RefreshToken.parse(text)
        following = RefreshToken.new(token.session_id)
        async with self._database.transaction() as transaction:
            session = await store.go_on(transaction, token, following, self._idle, self._lifetime)
            account_id = None if session else await store.end_session(transaction, token)
        if session is None:
            if account_id is not None:
                _log.warning(REUSED, account=account_id)
            raise SessionEnded("the session has ended")
        return session, following

    async def sign_out(self, text: str) -> None:
        """End the session of a refresh token, if there is one."""
        try:
            token = RefreshToken.parse(text)
        except SessionEnded:
            return
        async with self._database.transaction() as transaction:
            await store.end_session(transaction, token)

    async def sign_out_everywhere(self, account_id: str) -> None:
        """End all sessions of an account."""
        async with self._database.transaction() as transaction:
            await store.end_sessions(transaction, account_id)

    async def read(self, account_id: str) -> Account:
        """Read an account. Raises AccountUnknown."""
        async with self._database.transaction() as transaction:
            return await store.account_of(transaction, account_id)

    async def close(self, account_id: str, password: str) -> None:
        """Close an account for good; nothing is left to do when it is closed already.

        Raises CredentialsWrong, TooManyAttempts, TooBusy.
        """
        try:
            address = (await self.read(account_id)).email_address
        except AccountUnknown:
            return
        await self._with_password(address, password)
        tries = [self._secret.hide(what, address) for what in (SIGN_IN, SIGN_UP)]
        async with self._database.transaction() as transaction:
            await store.close_account(transaction, self._outbox, account_id)
            await store.forget_attempts(transaction, *tries)

    async def expire(self) -> None:
        """Forget what has ended, for ever."""
        while True:
            async with self._database.transaction() as transaction:
                await store.expire(transaction)
            await asyncio.sleep(_EXPIRE_EVERY.total_seconds())

    async def _with_password(self, email_address: str, password: str) -> Account:
        """Return the account that has this address and this password; the work is the same when there is none."""
        try:
            address = domain.email_address(email_address)
        except EmailAddressInvalid as error:
            raise CredentialsWrong("address or password is wrong") from error
        await self._begin_attempt(SIGN_IN, address)
        async with self._database.transaction() as transaction:
            account = await store.account_at(transaction, address)
        tried = domain.as_hashed(password) if domain.is_password(password) else ""
        is_right = await self._passwords.is_right(None if account is None else account.password_hash, tried)
        if account is None or not is_right:
            raise CredentialsWrong("address or password is wrong")
        return await self._with_new_hash(account, tried) if self._passwords.is_old(account.password_hash) else account

    async def _with_new_hash(self, account: Account, password: str) -> Account:
        """Replace a hash that was made with other parameters than those of today."""
        password_hash = await self._passwords.hash(password)
        async with self._database.transaction() as transaction:
            await store.set_password_hash(transaction, account.account_id, account.password_hash, password_hash)
            return await store.account_of(transaction, account.account_id)

    async def _begin_attempt(self, what: str, address: str) -> None:
        async with self._database.transaction() as transaction:
            may = await store.begin_attempt(transaction, self._secret.hide(what, address))
        if not may:
            raise TooManyAttempts("too many attempts with this address, try again later")
