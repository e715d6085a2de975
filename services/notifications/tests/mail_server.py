"""A real mail server that does what a test says, and keeps what it has taken."""

import asyncio
import os
import signal
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage

from aiosmtpd.smtp import MISSING, SMTP

HANG_UP = "hang up"
"""Ends the connection instead of an answer."""
SAY_NOTHING = "say nothing"
TAKE_AND_HANG_UP = "take and hang up"
"""Takes the mail, and ends the connection before it says so."""
TAKE_AND_SAY_NOTHING = "take and say nothing"
OK = "250 OK"


@dataclass
class MailServer:
    """What a server is asked in turn it answers as `script` says, else it takes every mail."""

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    greeted: list[str] = field(default_factory=list)
    script: dict[str, deque[str]] = field(default_factory=lambda: {"MAIL": deque(), "RCPT": deque(), "DATA": deque()})
    kills: Counter[tuple[str, str]] = field(default_factory=Counter)

    def plan(self, command: str, *answers: str) -> None:
        """Say what is answered next to MAIL, RCPT, or (at its end) DATA."""
        self.script[command].extend(answers)

    def planned(self, command: str) -> str:
        return self.script[command].popleft() if self.script[command] else OK

    async def handle_EHLO(self, server, session, envelope, hostname, responses):
        self.greeted.append(hostname)
        session.host_name = hostname
        return responses

    async def handle_MAIL(self, server, session, envelope, address, options):
        return await self._answered(server, self.planned("MAIL"), lambda: setattr(envelope, "mail_from", address))

    async def handle_RCPT(self, server, session, envelope, address, options):
        return await self._answered(server, self.planned("RCPT"), lambda: envelope.rcpt_tos.append(address))

    async def handle_DATA(self, server, session, envelope):
        def take() -> None:
            self.mails.append(message_from_bytes(envelope.content, policy=policy.default))
            self.recipients.extend(envelope.rcpt_tos)
            self.kill_at("taken", session)

        return await self._answered(server, self.planned("DATA"), take)

    async def _answered(self, server, answer, take):
        if answer.startswith("2") or answer in (TAKE_AND_HANG_UP, TAKE_AND_SAY_NOTHING):
            take()
        if answer in (HANG_UP, TAKE_AND_HANG_UP):
            server.transport.abort()
            return MISSING
        if answer in (SAY_NOTHING, TAKE_AND_SAY_NOTHING):
            await asyncio.sleep(3600)
        return answer

    def kill_at(self, point: str, session) -> None:
        """kill -9 of the client whose greeting asks for it: POINT.NUMBER.PID.test is killed at that time of the point.

        It cannot tell from anything that the server came so far.
        """
        labels = (session.host_name or "").split(".")
        if len(labels) != 4 or labels[0] != point:
            return
        self.kills[point, labels[2]] += 1
        if self.kills[point, labels[2]] == int(labels[1]):
            os.kill(int(labels[2]), signal.SIGKILL)

    def subjects(self) -> list[str]:
        return [mail["Subject"] for mail in self.mails]


class _Session(SMTP):
    async def smtp_DATA(self, arg):
        self.event_handler.kill_at("data", self.session)
        await super().smtp_DATA(arg)


@asynccontextmanager
async def mail_server(port: int = 0, **options) -> AsyncIterator[MailServer]:
    """Serve at a port of 127.0.0.1; `options` are those of aiosmtpd."""
    made = MailServer()
    loop = asyncio.get_running_loop()
    sessions = []

    def session():
        sessions.append(_Session(made, hostname="mail.test", loop=loop, **options))
        return sessions[-1]

    listening = await loop.create_server(session, "127.0.0.1", port)
    made.port = listening.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        listening.close()
        for one in sessions:
            if one.transport is not None:
                one.transport.close()
            if one._handler_coroutine is not None:
                one._handler_coroutine.cancel()
        await asyncio.gather(
            *(one._handler_coroutine for one in sessions if one._handler_coroutine), return_exceptions=True
        )
