"""What can be looked up, over gRPC."""

import inspect
from datetime import UTC, timedelta
from functools import partial
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
from amends_chassis.service import running
from amends_testkit.service import refusal_of, refusals_of
from pydantic import SecretStr, ValidationError
from shop_notifications import api, domain, store
from shop_notifications.__main__ import assemble
from shop_notifications.domain import MailTemplate, NotificationState
from shop_notifications.settings import Settings

from shop.notifications.v1 import notifications_pb2 as pb
from shop.notifications.v1.notifications_pb2_grpc import NotificationServiceStub

from .world import add, know, messages, notice, send_all, sender


@pytest_asyncio.fixture(loop_scope="session")
async def service(database, database_url):
    settings = Settings(database_url=SecretStr(database_url))
    async with running(settings, partial(assemble, settings)) as runtime:
        yield NotificationServiceStub(runtime.channel(runtime.address))


def test_every_refusal_has_a_status_and_every_state_a_number():
    assert set(api.ERRORS) == refusals_of(domain, pages=True)
    assert set(api.STATES) == set(NotificationState)
    assert set(api.STATES.values()) == set(pb.MessageState.values()) - {pb.MESSAGE_STATE_UNSPECIFIED}


async def test_a_message_says_what_became_of_it_and_neither_its_text_nor_its_address(service, database, server):
    await know(database)
    await add(database, notice())
    await send_all(sender(database, server.port))
    (one,) = await messages(database)
    found = (await service.GetMessage(pb.GetMessageRequest(notification_id=str(one.notification_id)))).message
    assert (found.customer_id, found.order_id, found.template) == ("ada", "o-1", "order-confirmed")
    assert (found.state, found.attempts, found.message_id) == (pb.MESSAGE_STATE_SENT, 1, one.message_id)
    assert found.sent_at.ToDatetime(UTC) == one.sent_at
    assert not found.HasField("due_at")
    assert "example.org" not in str(found)


async def test_messages_are_listed_newest_first_page_by_page(service, database):
    await add(database, *(notice(age=timedelta(minutes=number), order_id=f"o-{number}") for number in range(5)))
    seen, token = [], ""
    while True:
        page = await service.ListMessages(pb.ListMessagesRequest(page_size=2, page_token=token))
        seen.append([one.order_id for one in page.messages])
        token = page.next_page_token
        if not token:
            break
    assert seen == [["o-0", "o-1"], ["o-2", "o-3"], ["o-4"]]


async def test_a_list_can_be_of_a_customer_an_order_and_a_state(service, database):
    await add(database, notice(), notice(MailTemplate.CAMPAIGN, order_id=""), notice(customer_id="bob", order_id="o-2"))

    async def found(**wanted: Any) -> int:
        return len((await service.ListMessages(pb.ListMessagesRequest(**wanted))).messages)

    assert await found() == 3
    assert await found(customer_id="ada") == 2
    assert await found(order_id="o-1") == 1
    assert await found(customer_id="ada", order_id="o-2") == 0
    assert await found(state=pb.MESSAGE_STATE_DUE) == 3
    assert await found(state=pb.MESSAGE_STATE_SENT) == 0


@pytest.mark.parametrize(
    ("request_", "refusal"),
    [
        (pb.GetMessageRequest(notification_id="no uuid"), ("NOT_FOUND", "MESSAGE_UNKNOWN")),
        (
            pb.GetMessageRequest(notification_id="01890a5d-ac96-774b-bcce-b302099a8057"),
            ("NOT_FOUND", "MESSAGE_UNKNOWN"),
        ),
        (pb.ListMessagesRequest(page_size=501), ("INVALID_ARGUMENT", "PAGE_INVALID")),
        (pb.ListMessagesRequest(page_token="nonsense"), ("INVALID_ARGUMENT", "PAGE_INVALID")),
        (pb.ListMessagesRequest(page_token="MjAyNg=="), ("INVALID_ARGUMENT", "PAGE_INVALID")),
        (pb.ListMessagesRequest(state=77), ("INVALID_ARGUMENT", "STATE_UNKNOWN")),  # type: ignore[arg-type]
        (pb.ListMessagesRequest(customer_id="a b"), ("INVALID_ARGUMENT", "IDENTIFIER_INVALID")),
    ],
    ids=lambda value: "",
)
async def test_a_request_that_makes_no_sense_is_refused(service, request_, refusal):
    method = service.GetMessage if isinstance(request_, pb.GetMessageRequest) else service.ListMessages
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await method(request_)
    assert refusal_of(refused.value) == refusal


async def test_messages_at_their_end_are_deleted_after_their_time_and_no_others(database, server):
    await know(database)
    old, new = timedelta(hours=3), timedelta(hours=1)
    await add(database, notice(age=old), notice(age=old), notice(age=new), notice(age=old, customer_id="bob"))
    await send_all(sender(database, server.port))
    assert await store.expire(database, timedelta(hours=2)) == 2
    assert await store.expire(database, timedelta(hours=2)) == 0
    assert {one.state for one in await messages(database)} == {NotificationState.DUE, NotificationState.SENT}


@pytest.mark.parametrize(
    "wrong", [{"smtp": "http://mail.test"}, {"mail_from": "The Shop"}, {"mail_limit": 0}, {"mail_retention": "0s"}]
)
def test_settings_with_which_nothing_could_be_sent_are_refused(wrong):
    with pytest.raises(ValidationError):
        Settings(**wrong)


def test_no_method_sends_anything():
    methods = {name for name, one in inspect.getmembers(api.NotificationService) if name[0].isupper() and callable(one)}
    assert methods == {"GetMessage", "ListMessages"}
