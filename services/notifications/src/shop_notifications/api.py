"""shop.notifications.v1.NotificationService: parses requests, reads, answers. Assembled by `__main__`."""

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID

from amends_chassis.database import Database
from amends_chassis.domain import IdentifierInvalidError, RefusedError, identifier
from amends_chassis.errors import DomainError, InvalidArgument, NotFound, answers
from amends_chassis.types import Context
from google.protobuf.timestamp_pb2 import Timestamp

from shop.notifications.v1 import notifications_pb2 as pb
from shop.notifications.v1 import notifications_pb2_grpc
from shop_notifications import domain, store
from shop_notifications.domain import MessageUnknown, Notification, NotificationState, PageInvalid

DEFAULT_PAGE, MAX_PAGE = 50, 500

ERRORS: Mapping[type[RefusedError], type[DomainError]] = {
    IdentifierInvalidError: InvalidArgument,
    domain.MessageUnknown: NotFound,
    domain.PageInvalid: InvalidArgument,
}
STATES: Mapping[NotificationState, "pb.MessageState.ValueType"] = {
    NotificationState.DUE: pb.MESSAGE_STATE_DUE,
    NotificationState.SENDING: pb.MESSAGE_STATE_SENDING,
    NotificationState.SENT: pb.MESSAGE_STATE_SENT,
    NotificationState.REFUSED: pb.MESSAGE_STATE_REFUSED,
    NotificationState.UNKNOWN: pb.MESSAGE_STATE_UNKNOWN,
    NotificationState.SUPPRESSED: pb.MESSAGE_STATE_SUPPRESSED,
}
_BY_NUMBER = {number: state for state, number in STATES.items()}


class NotificationService(notifications_pb2_grpc.NotificationServiceServicer):
    """Shows messages."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def GetMessage(self, request: pb.GetMessageRequest, context: Context) -> pb.GetMessageResponse:
        """Read a message."""
        with answers(ERRORS):
            notification_id = _notification_id(request.notification_id)
            async with self._database.transaction() as transaction:
                return pb.GetMessageResponse(message=_message(await store.message(transaction, notification_id)))

    async def ListMessages(self, request: pb.ListMessagesRequest, context: Context) -> pb.ListMessagesResponse:
        """Read a page of messages, newest first."""
        with answers(ERRORS):
            wanted = store.MessageFilter(
                customer_id=identifier(request.customer_id, "customer_id") if request.customer_id else "",
                order_id=identifier(request.order_id, "order_id") if request.order_id else "",
                state=_state(request.state),
            )
            size, before = _page_size(request.page_size), _page_token(request.page_token)
            async with self._database.transaction() as transaction:
                found = await store.page(transaction, wanted, before, size + 1)
        return pb.ListMessagesResponse(
            messages=[_message(one) for one in found[:size]],
            next_page_token=_token_after(found[size - 1]) if len(found) > size else "",
        )


def _notification_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise MessageUnknown(f"there is no message {text[:100]}") from None


def _state(number: int) -> NotificationState | None:
    if number == pb.MESSAGE_STATE_UNSPECIFIED:
        return None
    if number not in _BY_NUMBER:
        raise PageInvalid(f"there is no state {number}")
    return _BY_NUMBER[number]  # type: ignore[index] # it is a number of an open enum


def _page_size(asked: int) -> int:
    if not 0 <= asked <= MAX_PAGE:
        raise PageInvalid(f"page_size must be 0 (for {DEFAULT_PAGE}) to {MAX_PAGE}")
    return asked or DEFAULT_PAGE


def _page_token(token: str) -> tuple[datetime, UUID] | None:
    if not token:
        return None
    try:
        written, _, notification_id = base64.urlsafe_b64decode(token).decode().partition("|")
        occurred_at = datetime.fromisoformat(written)
        if occurred_at.tzinfo is None:
            raise ValueError("a moment without its time zone")
        return occurred_at.astimezone(UTC), UUID(notification_id)
    except (binascii.Error, ValueError, OverflowError) as error:
        raise PageInvalid("page_token must come from the answer before") from error


def _token_after(last: Notification) -> str:
    return base64.urlsafe_b64encode(f"{last.occurred_at.isoformat()}|{last.notification_id}".encode()).decode()


def _message(notification: Notification) -> pb.Message:
    return pb.Message(
        notification_id=str(notification.notification_id),
        customer_id=notification.customer_id,
        order_id=notification.order_id,
        template=notification.template,
        state=STATES[notification.state],
        event_id=str(notification.event_id),
        message_id=notification.message_id,
        attempts=notification.attempts,
        answer=notification.answer,
        occurred_at=_timestamp(notification.occurred_at),
        due_at=_timestamp(notification.due_at)
        if notification.state in (NotificationState.DUE, NotificationState.UNKNOWN)
        else None,
        sent_at=_timestamp(notification.sent_at),
    )


def _timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp
