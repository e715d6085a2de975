"""What becomes of a message, on a real database and a real mail server (fault E26)."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
from amends_embedded import Postgres
from amends_testkit.service import migrated
from amends_testkit.waiting import eventually
from shop_notifications import store
from shop_notifications.domain import (
    ERASED,
    NO_ADDRESS,
    TOO_MANY,
    TOO_OLD,
    UNHEARD,
    MailTemplate,
    ServerReply,
    Transmission,
)
from shop_notifications.domain import NotificationState as State

from .mail_server import HANG_UP, SAY_NOTHING, TAKE_AND_HANG_UP, mail_server
from .world import add, know, messages, notice, send_all, sender, states


async def test_a_due_message_is_sent_once(database, server):
    await know(database)
    first = notice()
    await add(database, first, first, notice(MailTemplate.ORDER_REJECTED, event_id=first.event_id))
    assert await send_all(sender(database, server.port)) == 2
    assert sorted(server.subjects()) == ["We cannot fulfil your order o-1", "Your order o-1 is confirmed"]
    assert server.recipients == ["ada@example.org"] * 2
    found = await messages(database)
    assert {(one.state, one.attempts, one.due_at) for one in found} == {(State.SENT, 1, None)}
    assert all(one.answer.startswith("250") and one.sent_at is not None for one in found)
    assert {mail["Message-ID"] for mail in server.mails} == {one.message_id for one in found}


async def test_what_the_server_does_not_take_now_is_sent_later(database, server):
    await know(database)
    await add(database, notice())
    server.plan("RCPT", "450 greylisted", "451 still")
    await send_all(sender(database, server.port))
    (one,) = await messages(database)
    assert (one.state, one.attempts) == (State.SENT, 3)
    assert len(server.mails) == 1


async def test_the_next_attempt_waits_for_a_pause(database, server, monkeypatch):
    monkeypatch.setattr("random.random", lambda: 0.9)  # of at most 10 seconds
    await know(database)
    await add(database, notice(age=timedelta(minutes=5)), notice(age=timedelta(hours=5), customer_id="bob"))
    server.plan("DATA", "452 full", "452 full")
    patient = sender(database, server.port)
    patient._rules = type(patient._rules)()  # the pauses that are meant
    for _ in range(2):
        await patient.turn()
    (one,) = await messages(database, customer_id="ada")
    assert (one.state, one.attempts, one.answer) == (State.DUE, 1, "452 full")
    (pause,) = await database.pool.fetch("SELECT due_at - began_at AS held FROM notification WHERE attempts = 1")
    assert timedelta(seconds=9) <= pause["held"] < timedelta(seconds=30)
    assert timedelta(minutes=5) < await store.oldest(database) < timedelta(hours=1)  # bob has no address


async def test_what_the_server_refuses_is_not_sent_again(database, server):
    await know(database)
    await add(database, notice(), notice())
    server.plan("RCPT", "550 no such user")
    await send_all(sender(database, server.port))
    assert sorted(await states(database)) == [State.REFUSED, State.SENT]
    assert len(server.mails) == 1


async def test_421_is_for_later_over_another_connection(database, server):
    await know(database)
    await add(database, notice())
    server.plan("MAIL", "421 too many connections")
    await send_all(sender(database, server.port))
    assert await states(database) == [State.SENT]
    assert len(server.greeted) == 2


async def test_after_an_unknown_outcome_the_template_decides(database, server):
    await know(database)
    await add(database, notice(MailTemplate.ORDER_CONFIRMED))
    await add(database, notice(MailTemplate.CAMPAIGN))
    server.plan("DATA", TAKE_AND_HANG_UP, TAKE_AND_HANG_UP)
    await send_all(sender(database, server.port))
    found = {one.template: one for one in await messages(database)}
    order, campaign = found[MailTemplate.ORDER_CONFIRMED], found[MailTemplate.CAMPAIGN]
    assert (order.state, order.attempts) == (State.SENT, 2)
    assert (campaign.state, campaign.attempts, campaign.due_at) == (State.UNKNOWN, 1, None)
    sent = [mail["Message-ID"] for mail in server.mails]
    assert sorted(sent) == sorted([order.message_id, order.message_id, campaign.message_id])


async def test_nothing_was_transmitted_when_the_server_hangs_up_before_the_content(database, server):
    await know(database)
    await add(database, notice(MailTemplate.CAMPAIGN))
    server.plan("MAIL", HANG_UP)
    server.plan("RCPT", HANG_UP)
    await send_all(sender(database, server.port))
    assert await states(database) == [State.SENT]
    assert len(server.mails) == 1


async def test_a_server_that_says_nothing_costs_the_time_of_one_transmission(database, server):
    await know(database)
    await add(database, notice())
    server.plan("DATA", SAY_NOTHING)
    await send_all(sender(database, server.port, timeout=0.5))
    (one,) = await messages(database)
    assert one.state is State.SENT
    assert one.attempts >= 2


async def test_while_the_server_is_away_messages_are_due_and_afterwards_each_is_sent_once(database):
    await know(database)
    async with mail_server() as gone:
        pass
    await add(database, *(notice(age=timedelta(minutes=60 - number)) for number in range(10)))
    one = sender(database, gone.port)
    for _ in range(3):
        assert await one.turn() > timedelta(0)
    assert {(found.state, found.attempts) for found in await messages(database)} == {(State.DUE, 0)}
    assert await store.oldest(database) > timedelta(minutes=59)
    async with mail_server(gone.port) as server:
        await send_all(one)
        assert len({mail["Message-ID"] for mail in server.mails}) == len(server.mails) == 10
    assert set(await states(database)) == {State.SENT}
    assert await store.oldest(database) == timedelta(0)


async def test_a_message_waits_for_an_address_and_for_whose_the_order_is(database, server):
    await add(database, notice(customer_id=""))
    one = sender(database, server.port)
    await send_all(one)
    (waiting,) = await messages(database)
    assert (waiting.state, waiting.attempts, waiting.answer, waiting.customer_id) == (State.DUE, 0, NO_ADDRESS, "")
    async with database.transaction() as connection:
        await store.know_order(connection, "o-1", "ada")
    await know(database, locale="de")
    await database.pool.execute("UPDATE notification SET due_at = now()")
    await send_all(one)
    (sent,) = await messages(database, customer_id="ada")
    assert sent.state is State.SENT
    assert server.subjects() == ["Ihre Bestellung o-1 ist bestätigt"]


async def test_what_is_too_old_is_never_sent(database, server):
    await know(database)
    await add(database, notice(age=timedelta(hours=25)))
    await send_all(sender(database, server.port))
    (one,) = await messages(database)
    assert (one.state, one.answer, one.attempts) == (State.SUPPRESSED, TOO_OLD, 0)
    assert server.mails == []


async def test_a_customer_is_sent_no_more_than_the_limit_and_others_do_not_wait(database, server):
    await know(database)
    await know(database, "bob", email="bob@example.org")
    await add(database, *(notice() for _ in range(5)), notice(customer_id="bob"))
    one = sender(database, server.port, limit=3, window=timedelta(minutes=10))
    await send_all(one)
    assert sorted(server.recipients) == ["ada@example.org"] * 3 + ["bob@example.org"]
    waiting = await messages(database, state=State.DUE)
    assert {found.answer for found in waiting} == {TOO_MANY}
    later = "UPDATE notification SET began_at = began_at - $1::interval, due_at = due_at - $1::interval"
    await database.pool.execute(later, timedelta(minutes=11))
    await send_all(one)
    assert server.recipients.count("ada@example.org") == 5


async def test_two_senders_share_the_messages_and_keep_the_limit(database, server):
    await know(database)
    await add(database, *(notice() for _ in range(12)))
    await asyncio.gather(*(send_all(sender(database, server.port, limit=8)) for _ in range(2)))
    assert len({mail["Message-ID"] for mail in server.mails}) == len(server.mails) == 8
    assert len(server.greeted) == 2


async def test_nobody_writes_to_who_was_erased_and_nothing_about_them_is_left(database, server):
    await know(database)
    await add(database, notice(), notice(MailTemplate.CAMPAIGN), notice(customer_id="bob"))
    one = sender(database, server.port)
    await one.turn()
    async with database.transaction() as connection:
        await store.erase(connection, "ada", 2)
    await know(database, version=1)
    await add(database, notice())
    await send_all(one)
    assert len(server.mails) == 1
    found = await messages(database, customer_id="ada")
    assert [(one.state, dict(one.parameters)) for one in found[:2]] == [(State.SENT, {}), (State.SUPPRESSED, {})]
    assert (found[2].state, found[2].answer) == (State.SUPPRESSED, ERASED)
    left = await database.pool.fetch("SELECT email, locale, erased FROM contact WHERE customer_id = 'ada'")
    assert [tuple(row) for row in left] == [("", "", True)]


async def test_a_message_that_nobody_sends_any_more_is_unknown(database, server):
    await know(database)
    await add(database, notice(), notice(MailTemplate.CAMPAIGN))
    dead = sender(database, server.port)
    claimed = [one for _ in range(2) if (one := await store.claim(database, dead._rules))]
    assert set(await states(database)) == {State.SENDING}
    assert await store.give_up(database) == []
    await database.pool.execute("UPDATE notification SET due_at = now()")  # as if twice the time had passed
    assert sorted(await store.give_up(database)) == [MailTemplate.CAMPAIGN, MailTemplate.ORDER_CONFIRMED]
    assert {one.answer for one in await messages(database)} == {UNHEARD}
    await send_all(sender(database, server.port))
    found = {one.template: one.state for one in await messages(database)}
    assert found == {MailTemplate.ORDER_CONFIRMED: State.SENT, MailTemplate.CAMPAIGN: State.UNKNOWN}
    # Who was taken for dead speaks again: it changes nothing of a later attempt, and tells what became of its own.
    taken = Transmission(ServerReply.TAKEN, "250 OK")
    said = [await store.settle(database, one.notification, taken, timedelta(0)) for one in claimed]
    told = {one.notification.template: state for one, state in zip(claimed, said, strict=True)}
    assert told == {MailTemplate.ORDER_CONFIRMED: None, MailTemplate.CAMPAIGN: State.SENT}


async def test_what_cannot_be_written_is_refused_and_holds_up_nobody(database, server):
    await know(database, email="ada@example.org\r\nBcc: everybody@example.org")
    await know(database, "bob", email="bob@example.org")
    await add(database, notice(), notice(customer_id="bob"))
    await send_all(sender(database, server.port))
    assert server.recipients == ["bob@example.org"]
    (refused,) = await messages(database, customer_id="ada")
    assert refused.state is State.REFUSED
    assert "Bcc" not in refused.answer


async def test_a_sender_that_is_to_end_finishes_what_it_is_transmitting(database, server):
    await know(database)
    await add(database, notice())
    server.plan("DATA", "250 OK, after a while")
    began, go_on = asyncio.Event(), asyncio.Event()
    takes = server.handle_DATA

    async def slowly(*arguments):
        began.set()
        await go_on.wait()
        return await takes(*arguments)

    server.handle_DATA = slowly
    running = asyncio.create_task(sender(database, server.port).run())
    await began.wait()
    running.cancel()
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.wait([running])
    assert await states(database) == [State.SENT]
    assert len(server.mails) == 1


@pytest.mark.faults
async def test_a_database_that_is_away_is_waited_for_and_what_came_of_a_mail_is_written_then(tmp_path, server):
    async with AsyncExitStack() as stack:
        postgres = await stack.enter_async_context(await Postgres.start(tmp_path))
        url = await postgres.create("mail", "mail")
        database = await stack.enter_async_context(migrated(url, "shop_notifications.migrations"))
        await know(database)
        await add(database, notice(), notice())
        takes = server.handle_DATA

        async def while_it_dies(*arguments):
            if postgres.running and not server.mails:
                postgres.kill()
            return await takes(*arguments)

        server.handle_DATA = while_it_dies
        sending = asyncio.create_task(send_all(sender(database, server.port)))
        await eventually(lambda: len(server.mails) == 1)
        assert not sending.done()
        await postgres.restart()
        await sending
        assert await states(database) == [State.SENT] * 2
    assert len(server.mails) == 2
