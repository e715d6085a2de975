"""Starts the notifications service: `python -m shop_notifications`."""

from functools import partial

from amends_chassis.service import Runtime, run

from shop.notifications.v1.notifications_pb2_grpc import add_NotificationServiceServicer_to_server
from shop_notifications.api import NotificationService
from shop_notifications.events import CONSUMER, Intake
from shop_notifications.letters import Letters
from shop_notifications.sender import start_sending
from shop_notifications.settings import Settings


async def assemble(settings: Settings, runtime: Runtime) -> None:
    """Put the service's parts together. Whether the mail server is there does not matter to callers."""
    letters = Letters(settings.mail_from)
    runtime.consumes(CONSUMER, Intake(letters.domain).handlers)
    servicer = NotificationService(runtime.database)
    runtime.add(add_NotificationServiceServicer_to_server, servicer, "shop.notifications.v1.NotificationService")
    start_sending(runtime, settings, letters)


if __name__ == "__main__":
    run(settings := Settings(), partial(assemble, settings))
