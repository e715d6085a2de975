"""Accounts, sessions and attempts in Postgres: every function is one change or read inside its caller's transaction."""

from datetime import timedelta
from typing import TYPE_CHECKING

from amends_events import with_event

from shop.identity.events.v1.identity_pb2 import AccountClosed, AccountOpened
from shop_identity.domain import Account, AccountUnknown, Session
from shop_identity.refresh import RefreshToken

if TYPE_CHECKING:
    from amends_chassis.database import Connection
    from amends_events import Outbox

FREE_ATTEMPTS = 5
"""So often a password may be tried; then each try makes the address wait twice as long as the one before."""
LONGEST_WAIT = timedelta(minutes=15)
ATTEMPTS_KEPT = timedelta(days=1)
SESSIONS = 20
"""An account has no more sessions than that; the oldest one makes room."""

_OPEN = with_event(
    "INSERT INTO account (account_id, email_address, password_hash) VALUES ($1, $2, $3)"
    " ON CONFLICT (email_address) DO NOTHING RETURNING version",
    3,
)
_CLOSE = with_event("DELETE FROM account WHERE account_id = $1 RETURNING version + 1 AS version", 1)
_ATTEMPT = """
INSERT INTO attempt AS a (who, failures) VALUES ($1, 1)
ON CONFLICT (who) DO UPDATE SET
    failures = CASE WHEN a.last_at < now() - $4::interval THEN 1 ELSE a.failures + 1 END,
    blocked_until = CASE WHEN a.last_at < now() - $4::interval OR a.failures + 1 < $2 THEN now()
        ELSE now() + least($3::interval, interval '1 second' * power(2, least(a.failures + 1 - $2, 20))) END,
    last_at = now()
WHERE a.blocked_until <= now() RETURNING true
"""
_BEGIN = """
INSERT INTO session (session_id, account_id, token_hash, expires_at)
SELECT $1, account_id, $2, now() + $3::interval FROM account WHERE account_id = $4 AND password_hash = $5
RETURNING account_id, signed_in_at, expires_at
"""
_MAKE_ROOM = """
DELETE FROM session WHERE session_id IN
    (SELECT session_id FROM session WHERE account_id = $1 ORDER BY signed_in_at DESC, session_id OFFSET $2)
"""
_GO_ON = """
UPDATE session SET token_hash = $3, expires_at = least(now() + $4::interval, signed_in_at + $5::interval)
WHERE session_id = $1 AND token_hash = $2 AND expires_at > now() RETURNING account_id, signed_in_at, expires_at
"""


async def open_account(
    connection: "Connection", outbox: "Outbox", account_id: str, email_address: str, password_hash: str
) -> None:
    """Write down a new account; nothing happens when the address has one already."""
    opened = outbox.row(AccountOpened(account_id=account_id))
    await connection.execute(_OPEN, account_id, email_address, password_hash, *opened.values)


async def close_account(connection: "Connection", outbox: "Outbox", account_id: str) -> None:
    """Delete an account and its sessions; a second time changes nothing."""
    await connection.execute(_CLOSE, account_id, *outbox.row(AccountClosed(account_id=account_id)).values)


async def account_at(connection: "Connection", email_address: str) -> Account | None:
    """Read the account of an address; None when there is none."""
    row = await connection.fetchrow(
        "SELECT account_id, email_address, password_hash, opened_at FROM account WHERE email_address = $1",
        email_address,
    )
    return None if row is None else Account(*row)


async def account_of(connection: "Connection", account_id: str) -> Account:
    """Read an account. Raises AccountUnknown."""
    row = await connection.fetchrow(
        "SELECT account_id, email_address, password_hash, opened_at FROM account WHERE account_id = $1", account_id
    )
    if row is None:
        raise AccountUnknown("the account was closed")
    return Account(*row)


async def set_password_hash(connection: "Connection", account_id: str, before: str, after: str) -> None:
    """Replace the hash of a password by another one of the same password."""
    await connection.execute(
        "UPDATE account SET password_hash = $3 WHERE account_id = $1 AND password_hash = $2", account_id, before, after
    )


async def begin_attempt(connection: "Connection", who: bytes) -> bool:
    """Count one more try of a password, as a failure until it is known; False when `who` has to wait."""
    return bool(await connection.fetchval(_ATTEMPT, who, FREE_ATTEMPTS, LONGEST_WAIT, ATTEMPTS_KEPT))


async def forget_attempts(connection: "Connection", *who: bytes) -> None:
    """Forget how often passwords were tried: one was right, or the account is closed."""
    await connection.execute("DELETE FROM attempt WHERE who = ANY($1::bytea[])", list(who))


async def begin_session(
    connection: "Connection", account: Account, token: RefreshToken, idle: timedelta
) -> Session | None:
    """Begin a session; None when the account was closed, or got another password, since it was read."""
    row = await connection.fetchrow(
        _BEGIN, token.session_id, token.token_hash, idle, account.account_id, account.password_hash
    )
    if row is None:
        return None
    await connection.execute(_MAKE_ROOM, account.account_id, SESSIONS)
    return Session(*row)


async def go_on(
    connection: "Connection", token: RefreshToken, following: RefreshToken, idle: timedelta, lifetime: timedelta
) -> Session | None:
    """Let a session go on with another token; None when the token is not its newest, or it has ended."""
    row = await connection.fetchrow(_GO_ON, token.session_id, token.token_hash, following.token_hash, idle, lifetime)
    return None if row is None else Session(*row)


async def end_session(connection: "Connection", token: RefreshToken) -> str | None:
    """End the session that a token names, whichever of its tokens it is; return its account, None if it had ended."""
    account_id: str | None = await connection.fetchval(
        "DELETE FROM session WHERE session_id = $1 RETURNING CASE WHEN expires_at > now() THEN account_id END",
        token.session_id,
    )
    return account_id


async def end_sessions(connection: "Connection", account_id: str) -> None:
    """End all sessions of an account."""
    await connection.execute("DELETE FROM session WHERE account_id = $1", account_id)


async def expire(connection: "Connection") -> None:
    """Delete sessions that have ended, and attempts that are long ago."""
    await connection.execute("DELETE FROM session WHERE expires_at <= now()")
    await connection.execute(
        "DELETE FROM attempt WHERE last_at < now() - $1::interval AND blocked_until <= now()", ATTEMPTS_KEPT
    )
