"""The mail server: takes every mail, for whomever it is, into the inbox. Started by `serving`."""

import asyncio
import socket
from typing import Any

from aiosmtpd.smtp import SMTP

from amends_mail_catcher.inbox import Inbox

LARGEST = 4 * 1024 * 1024
"""So many bytes a mail may have."""
TAKEN = "250 OK, it was caught"


class Catcher:
    """What aiosmtpd asks when a mail has come."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # as aiosmtpd calls it
        """Keep a mail."""
        self._inbox.add(envelope.mail_from or "", tuple(envelope.rcpt_tos), envelope.original_content)
        return TAKEN


async def listen(inbox: Inbox, host: str, port: int) -> asyncio.Server:
    """Take mails at a port; 0 is a free one, and the host :: is all of IPv6 and IPv4. Raises OSError."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    listening = socket.create_server((host, port), family=family, dualstack_ipv6=both)
    return await loop.create_server(
        lambda: SMTP(Catcher(inbox), hostname="mail-catcher", data_size_limit=LARGEST, loop=loop), sock=listening
    )
