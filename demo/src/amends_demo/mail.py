"""The customer of the stories, and the mails that she got. Called by `commands`, `playbill` and `stories`."""

import asyncio
import json
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from amends_chassis.certificates import Certificates
from amends_chassis.dial import dial

from shop.customers.v1 import customers_pb2
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from shop.notifications.v1 import notifications_pb2
from shop.notifications.v1.notifications_pb2_grpc import NotificationServiceStub

CUSTOMER, EMAIL_ADDRESS = "ada", "ada@example.org"
WAIT = timedelta(seconds=15)
CALL = timedelta(seconds=10).total_seconds()


@dataclass(frozen=True, slots=True)
class ReceivedMail:
    """A mail as its recipient has it."""

    recipient: str
    subject: str
    message_id: str
    text: str


async def know_customer(customers: str, certificates: Certificates | None = None) -> None:
    """Tell the customers service at HOST:PORT where the customer of the stories is written to."""
    customer = customers_pb2.ChangeCustomerRequest(
        account_id=CUSTOMER, name="Ada Lovelace", email_address=EMAIL_ADDRESS, locale="en"
    )
    async with dial(customers, certificates=certificates) as channel:
        stub: Any = CustomerServiceStub(channel)
        await stub.ChangeCustomer(customer, timeout=CALL)


async def messages_about(
    notifications: str, order_id: str, certificates: Certificates | None
) -> Sequence[notifications_pb2.Message]:
    """Return what the notifications service at HOST:PORT says of the messages about an order."""
    async with dial(notifications, certificates=certificates) as channel:
        stub: Any = NotificationServiceStub(channel)
        answer: notifications_pb2.ListMessagesResponse = await stub.ListMessages(
            notifications_pb2.ListMessagesRequest(order_id=order_id), timeout=CALL
        )
    return answer.messages


def mails(page: str) -> list[ReceivedMail]:
    """Return every mail that the catcher at a page has, the newest first. Raises OSError."""
    with urllib.request.urlopen(f"{page}/mails.json", timeout=CALL) as answer:  # noqa: S310 # an address of this machine
        found = json.loads(answer.read())
    return [ReceivedMail(", ".join(one["to"]), one["subject"], one["messageId"], one["text"]) for one in found]


async def mail_with(page: str, subject: str) -> ReceivedMail:
    """Wait for a mail with a subject, and return it. Raises TimeoutError, OSError."""
    async with asyncio.timeout(WAIT.total_seconds()):
        while True:
            for mail in await asyncio.to_thread(mails, page):
                if mail.subject == subject:
                    return mail
            await asyncio.sleep(0.1)
