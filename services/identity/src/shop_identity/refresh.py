"""Refresh tokens: the name of a session and a secret that is good once. The database has the secret's hash alone."""

import binascii
import hashlib
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from shop_identity.domain import SessionEnded

_ID, _SECRET = 16, 32


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token, taken apart."""

    session_id: UUID
    secret: bytes = field(repr=False)

    @property
    def token_hash(self) -> bytes:
        """Return what the database keeps of it."""
        return hashlib.sha256(self.secret).digest()

    @property
    def text(self) -> str:
        """Return it as clients have it."""
        return urlsafe_b64encode(self.session_id.bytes + self.secret).decode()

    @classmethod
    def new(cls, session_id: UUID | None = None) -> "RefreshToken":
        """Make the next token of a session, or the first one of a new session."""
        return cls(session_id or uuid4(), secrets.token_bytes(_SECRET))

    @classmethod
    def parse(cls, text: str) -> "RefreshToken":
        """Take a token apart. Raises SessionEnded for what was never given out."""
        try:
            raw = urlsafe_b64decode(text.encode())
        except (binascii.Error, ValueError) as error:
            raise SessionEnded("the session has ended") from error
        if len(raw) != _ID + _SECRET:
            raise SessionEnded("the session has ended")
        return cls(UUID(bytes=raw[:_ID]), raw[_ID:])
