"""One connection to a mail server, kept as long as it is of use, and what its answers mean. Called by `sender`.

After a message that the server refused the connection is good for the next one. Whatever leaves its state in doubt
closes it: an answer that is none, time that has passed, 421.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final
from urllib.parse import unquote, urlsplit

import aiosmtplib

from shop_notifications.domain import ServerReply, Transmission

CLOSES: Final = 421
"""The server says so before it ends the connection."""
_QUIT_WITHIN: Final = timedelta(seconds=1)
_ANSWER: Final = 500
"""So many characters of what a server says are kept."""


class Security(StrEnum):
    """How a connection is encrypted. It is said, and never depends on what a server offers."""

    NONE = "smtp"
    STARTTLS = "smtp+starttls"
    TLS = "smtps"


PORTS: Final = {Security.NONE: 25, Security.STARTTLS: 587, Security.TLS: 465}


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Where a mail server is, and how it is spoken to."""

    host: str
    port: int
    security: Security
    username: str | None = None
    password: str | None = None


class SmtpUnreachableError(Exception):
    """No message can be transmitted now: there is no connection, or the server does not let us in."""


def smtp_server(url: str) -> SmtpServer:
    """Read smtp://HOST:PORT, smtp+starttls:// or smtps://, with USER:PASSWORD@ where needed. Raises ValueError."""
    wrong = "AMENDS_SMTP must be smtp://, smtp+starttls:// or smtps://, then USER:PASSWORD@ or nothing, then HOST:PORT"
    try:
        parts = urlsplit(url)
        security, port = Security(parts.scheme), parts.port
    except ValueError:
        raise ValueError(wrong) from None
    if not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(wrong)
    if (parts.username is None) != (parts.password is None):
        raise ValueError(f"{wrong}: a user name and a password go together")
    if parts.username is not None and security is Security.NONE:
        raise ValueError(f"{wrong}: a password does not go over a connection in plain text")
    return SmtpServer(
        parts.hostname,
        port or PORTS[security],
        security,
        None if parts.username is None else unquote(parts.username),
        None if parts.password is None else unquote(parts.password),
    )


class SmtpClient:
    """Transmits messages, one after the other."""

    def __init__(self, server: Callable[[], SmtpServer], hostname: str, timeout: timedelta) -> None:
        """Take the server as it is when a connection is made, and the name to greet it with; nothing is opened yet."""
        self._server = server
        self._hostname = hostname
        self._timeout = timeout.total_seconds()
        self._client: aiosmtplib.SMTP | None = None

    @property
    def connected(self) -> bool:
        """Return whether there is a connection, as far as is known."""
        return self._client is not None and self._client.is_connected

    async def connect(self) -> None:
        """Connect, greet, encrypt and log in. Raises SmtpUnreachableError."""
        self.drop()
        server = self._server()
        client = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            username=server.username,
            password=server.password,
            local_hostname=self._hostname,
            timeout=self._timeout,
            use_tls=server.security is Security.TLS,
            start_tls=server.security is Security.STARTTLS,  # None would encrypt if the server offers it, or not
        )
        try:
            async with asyncio.timeout(self._timeout):
                await client.connect()
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            client.close()
            raise SmtpUnreachableError(f"{server.host}:{server.port}: {_said(error)}") from error
        self._client = client

    async def transmit(self, sender: str, recipient: str, content: bytes) -> Transmission:
        """Transmit a message to one address and return what came of it; needs a connection."""
        assert self._client is not None
        client, begun = self._client, False
        try:
            async with asyncio.timeout(self._timeout):
                await client.mail(sender)
                await client.rcpt(recipient)
                begun = True
                answer = await client.data(content)
            return Transmission(ServerReply.TAKEN, _cut(f"{answer.code} {answer.message}"))
        except aiosmtplib.SMTPResponseException as error:
            reply = _reply(error.code, begun)
            if error.code == CLOSES or reply is ServerReply.UNKNOWN:
                self.drop()
            else:
                await self._reset(client)
            return Transmission(reply, _said(error))
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            self.drop()
            return Transmission(ServerReply.UNKNOWN if begun else ServerReply.LATER, _said(error))
        except BaseException:
            self.drop()
            raise

    async def _reset(self, client: aiosmtplib.SMTP) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await client.rset()
        except (aiosmtplib.SMTPException, OSError, TimeoutError):
            self.drop()

    def drop(self) -> None:
        """Close the connection without a word, if there is one."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    async def close(self) -> None:
        """Take leave of the server, if there is a connection."""
        client, self._client = self._client, None
        if client is None:
            return
        with suppress(aiosmtplib.SMTPException, OSError, TimeoutError):
            async with asyncio.timeout(_QUIT_WITHIN.total_seconds()):
                await client.quit()
        client.close()


def _reply(code: int, begun: bool) -> ServerReply:
    """Return what an answer other than the wanted one means; `begun`: it was given to DATA or to the content."""
    if 400 <= code < 500:
        return ServerReply.LATER
    if 500 <= code < 600:
        return ServerReply.REFUSED
    return ServerReply.UNKNOWN if begun else ServerReply.LATER


def _said(error: BaseException) -> str:
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return _cut(f"{error.code} {error.message}")
    return _cut(f"{type(error).__name__}: {error}")


def _cut(text: str) -> str:
    """Return a server's text as one line without control characters."""
    line = " ".join(text.split())
    return "".join(character for character in line if character.isprintable())[:_ANSWER]
