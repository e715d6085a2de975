"""shop.notifications.v1.NotificationService: parses requests, reads, answers. Assembled by `__main__`."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from amends_chassis.database import Database
from amends_chassis.domain import IdentifierInvalidError, RefusedError, identifier
from amends_chassis.errors import DomainError, InvalidArgument, NotFound, answers
from amends_chassis.pages import (
    PageInvalidError,
    moment_of,
    never_given_out,
    page_size,
    page_token,
    parts_of,
)
from amends_chassis.people import may_see, whose_alone
from amends_chassis.timestamps import timestamp
from amends_chassis.types import Context
from google.protobuf.timestamp_pb2 import Timestamp

from shop.notifications.v1 import notifications_pb2 as pb
from shop.notifications.v1 import notifications_pb2_grpc
from shop_notifications import domain, store
from shop_notifications.domain import MessageUnknown, Notification, NotificationState

MAX_PAGE = 500
STAFF = "staff"
"""The role of those who may read about everybody's messages."""

ERRORS: Mapping[type[RefusedError], type[DomainError]] = {
    IdentifierInvalidError: InvalidArgument,
    domain.MessageUnknown: NotFound,
    domain.CustomerUnknown: NotFound,
    PageInvalidError: InvalidArgument,
    domain.StateUnknown: InvalidArgument,
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
                found = await store.message(transaction, notification_id)
            if not may_see(found.customer_id, STAFF):
                raise domain.unknown(notification_id)
        return pb.GetMessageResponse(message=_message(found))

    async def ListMessages(self, request: pb.ListMessagesRequest, context: Context) -> pb.ListMessagesResponse:
        """Read a page of messages, newest first."""
        with answers(ERRORS):
            customer_id = request.customer_id or whose_alone(STAFF)
            if customer_id and not may_see(identifier(customer_id, "customer_id"), STAFF):
                raise domain.CustomerUnknown(f"there is no customer {customer_id}")
            wanted = store.MessageFilter(
                customer_id=customer_id,
                order_id=identifier(request.order_id, "order_id") if request.order_id else "",
                state=_state(request.state),
            )
            size, before = page_size(request.page_size, largest=MAX_PAGE), _before(request.page_token)
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
        raise domain.StateUnknown(f"there is no state {number}")
    return _BY_NUMBER[number]  # type: ignore[index] # it is a number of an open enum


def _before(token: str) -> tuple[datetime, UUID] | None:
    key = parts_of(token, 2)
    if key is None:
        return None
    try:
        return moment_of(key[0]), UUID(key[1])
    except ValueError as error:
        raise never_given_out() from error


def _token_after(last: Notification) -> str:
    return page_token(last.occurred_at.isoformat(), str(last.notification_id))


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
    return None if moment is None else timestamp(moment)
