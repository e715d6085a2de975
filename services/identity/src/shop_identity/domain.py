"""The rules of accounts, free of SQL and gRPC."""

import re
import unicodedata
from dataclasses import dataclass, field
from datetime import datetime

from amends_chassis.domain import RefusedError

MIN_PASSWORD, MAX_PASSWORD = 12, 128
"""Characters: https://pages.nist.gov/800-63-4/sp800-63b.html, 3.1.1.2."""

_EMAIL_ADDRESS = re.compile(r"[^\s@<>()\[\],;:\\\"]{1,64}@[^\s@<>()\[\],;:\\\"]{1,189}")


class EmailAddressInvalid(RefusedError):
    """The text is no e-mail address."""

    reason = "EMAIL_ADDRESS_INVALID"


class PasswordInvalid(RefusedError):
    """The password is too short, too long, or the address itself."""

    reason = "PASSWORD_INVALID"


class CredentialsWrong(RefusedError):
    """There is no such account, or its password is another one; which of the two nobody is told."""

    reason = "CREDENTIALS_WRONG"


class TooManyAttempts(RefusedError):
    """The address was tried so often that it has to wait, whether it has an account or not."""

    reason = "TOO_MANY_ATTEMPTS"


class TooBusy(RefusedError):
    """More passwords than can be checked in time are waiting already."""

    reason = "BUSY"


class SessionEnded(RefusedError):
    """The refresh token belongs to no session, or to one that has ended, or is not its newest."""

    reason = "SESSION_ENDED"


class TokenInvalid(RefusedError):
    """The access token is not one that was given out here, or has expired."""

    reason = "TOKEN_INVALID"


class AccountUnknown(RefusedError):
    """The account was closed."""

    reason = "ACCOUNT_UNKNOWN"


@dataclass(frozen=True, slots=True)
class Account:
    """Who may sign in."""

    account_id: str
    email_address: str = field(repr=False)
    password_hash: str = field(repr=False)
    opened_at: datetime


@dataclass(frozen=True, slots=True)
class Session:
    """A session that goes on."""

    account_id: str
    signed_in_at: datetime
    expires_at: datetime


def email_address(text: str) -> str:
    """Return an e-mail address as accounts have it: in lower case. Raises EmailAddressInvalid."""
    written = unicodedata.normalize("NFC", text).lower()
    if not (_EMAIL_ADDRESS.fullmatch(written) and written.isprintable()):
        raise EmailAddressInvalid("email_address must look like ada@example.com")
    return written


def new_password(text: str, address: str) -> str:
    """Return a password as it is hashed, if it is good enough for the account of `address`. Raises PasswordInvalid."""
    if not is_password(text):
        raise PasswordInvalid(f"password must have {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    if text.lower() == address:
        raise PasswordInvalid("password must not be the address")
    return as_hashed(text)


def is_password(text: str) -> bool:
    """Return whether a text can be somebody's password."""
    return MIN_PASSWORD <= len(text) <= MAX_PASSWORD


def as_hashed(text: str) -> str:
    """Return a password in the form that is the same for every keyboard (NFKC)."""
    return unicodedata.normalize("NFKC", text)
