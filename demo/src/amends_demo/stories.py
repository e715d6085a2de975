"""The stories of single orders. Called by `amends_demo.commands`, in the order of STORIES.

Each story does what a customer, a carrier or a person in the office would do, shows the timeline of the run, and
states what must hold afterwards.
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import grpc.aio
from amends_embedded.process import until

from amends.saga.v1 import run_pb2
from amends_demo import accounts, front_door
from amends_demo.chat import Chat
from amends_demo.mail import EMAIL_ADDRESS, mail_with, messages_about
from amends_demo.shop import CALL, FULL, Shop
from amends_demo.stack import GATEWAY, REPLICAS, Stack
from amends_demo.telling import Telling
from amends_demo.told import events_of, name_of, spoil
from shop.notifications.v1 import notifications_pb2
from shop.orders.v1 import orders_pb2
from shop.payments.v1 import payments_pb2
from shop.types.v1 import types_pb2

CROWD = 50
SLOW_EVERY = 5
"""One order in this many has the slow card, so that some are surely under way when the replica dies."""
KILL_AFTER = 15
END = timedelta(seconds=60)
SOON = timedelta(seconds=10)
GOOD = [
    "OrderPlaced",
    "StockReserved",
    "PaymentTaken",
    "ParcelBooked",
    "OrderConfirmed",
    "OrderDispatched",
    "ParcelHandedOver",
]
UNDONE = {"PaymentRefunded", "StockReleased", "OrderRejected"}
"""The events of an order that nobody orchestrates: of one that succeeds, and of a refused one, after the refusal."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The shop and the console that a story plays with."""

    stack: Stack
    shop: Shop
    telling: Telling
    chat: Chat


Story = Callable[[Scene], Awaitable[None]]


async def an_order(scene: Scene) -> None:
    """Tell how an order succeeds."""
    shop, telling = scene.shop, scene.telling
    telling.title("An order", "reserve, charge, ship, confirm")
    order = await shop.place("order-1")
    run = await telling.timeline(shop.runs, order.run_id)
    order = await shop.order("order-1")
    telling.claim("the run is COMPLETED", run.state == run_pb2.RUN_STATE_COMPLETED, run.message)
    telling.claim(
        f"the order is CONFIRMED, tracking {order.tracking_id}, payment {order.payment_id}",
        order.state == orders_pb2.ORDER_STATE_CONFIRMED and bool(order.tracking_id) and bool(order.payment_id),
        order,
    )


async def the_card_is_declined(scene: Scene) -> None:
    """Tell how the second step is refused, and the first one undone."""
    shop, telling = scene.shop, scene.telling
    telling.title("The card is declined", "the reservation is released, nothing is charged")
    before = await shop.available("tea-assam")
    order = await shop.place("order-2", "tok_chargeDeclined")
    run = await telling.timeline(shop.runs, order.run_id)
    telling.claim("the run is COMPENSATED", run.state == run_pb2.RUN_STATE_COMPENSATED, run.message)
    after = await shop.available("tea-assam")
    telling.claim("the reserved tea is back on the shelf", after == before, (before, after))
    telling.claim("there is no payment", await shop.payment("order-2") is None)
    await _rejected(scene, "order-2")


async def shipping_has_no_slot(scene: Scene) -> None:
    """Tell how the pivot is refused, and everything before it undone."""
    shop, telling = scene.shop, scene.telling
    telling.title("Shipping has no slot", f"no carrier has room to {FULL}: the money and the stock go back")
    before = await shop.available("tea-assam")
    order = await shop.place("order-3", country=FULL)
    run = await telling.timeline(shop.runs, order.run_id)
    telling.claim("the run is COMPENSATED", run.state == run_pb2.RUN_STATE_COMPENSATED, run.message)
    payment = await shop.payment("order-3")
    telling.claim(
        "the charge is refunded",
        payment is not None and payment.state == payments_pb2.PAYMENT_STATE_REFUNDED,
        payment,
    )
    after = await shop.available("tea-assam")
    telling.claim("the stock is returned", after == before, (before, after))
    await _rejected(scene, "order-3")


async def payments_answers_late(scene: Scene) -> None:
    """Let the deadline of a call pass: nobody knows whether the card was charged. The same key is sent again."""
    shop, telling = scene.shop, scene.telling
    telling.title("Payments answers late", "after the call's deadline: unknown, asked again with the same key")
    order = await shop.place("order-4", "tok_slow", wait=False)
    run = await telling.timeline(shop.runs, await _run_id(scene, order.order_id))
    charge = next(step for step in run.steps if step.name == "charge")
    telling.claim(f"charge took {charge.attempts} attempts", charge.attempts > 1, charge.attempts)
    telling.claim("the run is COMPLETED", run.state == run_pb2.RUN_STATE_COMPLETED, run.message)
    payment = await shop.payment("order-4")
    telling.claim("there is one payment, and it stands", payment is not None and payment.state == 1, payment)


async def the_orchestrator_is_killed(scene: Scene) -> None:
    """kill -9 under load; another replica takes the runs over."""
    stack, shop, telling = scene.stack, scene.shop, scene.telling
    victim, survivor = REPLICAS
    telling.title(f"kill -9 of {victim}", f"while {CROWD} orders run; {survivor} takes over")
    names = [f"crowd-{number}" for number in range(1, CROWD + 1)]
    placed: list[str] = []

    async def place(number: int, name: str) -> None:
        card = "tok_slow" if number % SLOW_EVERY == 0 else "tok_visa"
        await _patiently(lambda: shop.place(name, card, wait=False))
        placed.append(name)

    crowd = asyncio.gather(*(place(number, name) for number, name in enumerate(names)))
    await until(lambda: len(placed) >= KILL_AFTER, END)
    stack.child(victim).kill()
    telling.say(f"  killed {victim} after {len(placed)} orders were accepted")
    await crowd
    ended = await _all_ended(scene, names)
    runs = [await shop.run(name) for name in ended]
    taken = sorted((run for run in runs if run.fence > 1), key=lambda run: -run.seq)
    if taken:
        telling.say(f"  the run of {taken[0].idempotency_key}:")
        await telling.timeline(shop.runs, taken[0].run_id)
    telling.claim(f"all {CROWD} orders have ended", len(ended) == CROWD, len(ended))
    completed = sum(run.state == run_pb2.RUN_STATE_COMPLETED for run in runs)
    telling.claim(f"all {CROWD} are COMPLETED", completed == CROWD, completed)
    telling.claim(f"{len(taken)} of them changed hands", len(taken) > 0)
    await stack.start_one(victim)
    telling.say(f"  {victim} is back")


async def refunds_are_refused(scene: Scene) -> None:
    """Refuse a compensation: the run waits for a person, and a person releases it."""
    shop, telling = scene.shop, scene.telling
    telling.title("Refunds are refused", "the customer disputes the charge: the run waits for a person")
    order = await shop.place("order-6", "tok_disputed", country=FULL, wait=False)
    run_id = await _run_id(scene, order.order_id)
    run = await telling.timeline(shop.runs, run_id, until_parked=True)
    telling.claim(
        f"the run is PARKED: {run.parked.reason} at {run.parked.step}",
        run.state == run_pb2.RUN_STATE_PARKED and run.parked.step == "charge",
        run.message,
    )
    await until(lambda: ("RunParked", run_id) in scene.chat.told, SOON)
    heard = scene.chat.told.get(("RunParked", run_id), {})
    telling.claim(
        f"the chat of who is on call was told: {heard.get('reason')} at {heard.get('step')}",
        (heard.get("reason"), heard.get("step")) == (run.parked.reason, run.parked.step),
        scene.chat.told,
    )
    await shop.payments.CloseDispute(payments_pb2.CloseDisputeRequest(order_id="order-6"), timeout=CALL)
    reason, actor = "the bank closed the dispute in our favour", "grace@shop.example"
    command = ["resolve", run_id, "retry", "--reason", reason, "--actor", actor]
    telling.say(f"  $ amends resolve {run_id} retry --reason '{reason}' --actor {actor}")
    code, output = await _amends(scene, *command, "--address", scene.stack.address(REPLICAS[0]))
    telling.claim("`amends resolve` succeeds", code == 0, output)
    run = await telling.timeline(shop.runs, run_id, after=run.parked.seq)
    telling.claim("then the run is COMPENSATED", run.state == run_pb2.RUN_STATE_COMPENSATED, run.message)
    await shop.place("order-6", "tok_disputed", country=FULL)  # the customer asks again, and waits for the end
    await _rejected(scene, "order-6")
    code, output = await _amends(scene, "watch", run_id, "-o", "json", "--address", scene.stack.address(REPLICAS[0]))
    told = any(actor in line and reason in line for line in output.splitlines())
    telling.claim("who and why is in the journal", told, output)


async def an_order_by_events(scene: Scene) -> None:
    """Tell how an order succeeds that nobody orchestrates, beside one that has a saga."""
    shop, telling = scene.shop, scene.telling
    telling.title(
        "An order by events", "each service answers the events of the others; the same order by its saga beside it"
    )
    began = time.monotonic()
    order = await shop.place("order-events", fulfilment=types_pb2.FULFILMENT_CHOREOGRAPHED)
    by_events, began = time.monotonic() - began, time.monotonic()
    other = await shop.place("order-saga", fulfilment=types_pb2.FULFILMENT_ORCHESTRATED)
    by_saga = time.monotonic() - began
    told = await _told(scene, order.order_id, "ParcelHandedOver")
    telling.say(f"  by events it took {by_events * 1000:.0f} ms, by its saga {by_saga * 1000:.0f} ms")
    telling.claim(
        f"both are CONFIRMED, tracking {order.tracking_id} and {other.tracking_id}",
        {order.state, other.state} == {orders_pb2.ORDER_STATE_CONFIRMED} and bool(order.tracking_id),
        (order, other),
    )
    telling.claim("the order by events has no run, the other one has", not order.run_id and bool(other.run_id))
    telling.claim(f"its events are {', '.join(GOOD)}", told == GOOD, told)


async def an_order_by_events_is_undone(scene: Scene) -> None:
    """Tell how a refusal at the third service is followed by everybody: each undoes what it did."""
    shop, telling = scene.shop, scene.telling
    telling.title(
        "An order by events is refused", f"shipping has no room to {FULL}: each service undoes its part by itself"
    )
    before = await shop.available("tea-assam")
    order = await shop.place("order-undone", country=FULL, fulfilment=types_pb2.FULFILMENT_CHOREOGRAPHED)
    told = await _told(scene, order.order_id, "PaymentRefunded", "StockReleased", "OrderRejected")
    payment = await shop.payment(order.order_id)
    telling.claim(
        "the charge is refunded",
        payment is not None and payment.state == payments_pb2.PAYMENT_STATE_REFUNDED,
        payment,
    )
    after = await shop.available("tea-assam")
    telling.claim("the stock is returned", after == before, (before, after))
    telling.claim(
        "after ParcelRefused came what undoes it", set(told[4:]) == UNDONE and told[3] == "ParcelRefused", told
    )
    await _rejected(scene, order.order_id)


async def an_order_by_events_is_late(scene: Scene) -> None:
    """Tell how the monitor says who keeps an order waiting that nobody orchestrates."""
    shop, telling, stack = scene.shop, scene.telling, scene.stack
    telling.title("An order by events is late", "inventory is stopped; the monitor says who is missing, and since when")
    await stack.child("inventory").terminate(timedelta(seconds=10))
    placed = await shop.place("order-late", fulfilment=types_pb2.FULFILMENT_CHOREOGRAPHED, wait=False)
    telling.claim("the order is taken, and PENDING", placed.state == orders_pb2.ORDER_STATE_PENDING, placed)
    late = await _flows(scene, "--state", "late")
    telling.claim("the monitor shows it as LATE, and that inventory is missing", "by inventory" in late, late)
    await stack.start_one("inventory")
    ended = await _flows(scene, placed.order_id, until="ENDED_WELL")
    telling.claim("inventory is back, and the flow has ENDED_WELL", "missing" not in ended, ended)
    order = await shop.order(placed.order_id)
    telling.claim("the order is CONFIRMED", order.state == orders_pb2.ORDER_STATE_CONFIRMED, order)


async def an_event_is_poison(scene: Scene) -> None:
    """Tell how an event that nobody can read holds up its order and no other, until a person leaves it out."""
    shop, telling, stack = scene.shop, scene.telling, scene.stack
    telling.title("An event is poison", "nobody can read it: its order waits, all others go on, and a person decides")
    await spoil(stack.nats.url, "order-poison")
    placed = await shop.place("order-poison", fulfilment=types_pb2.FULFILMENT_CHOREOGRAPHED, wait=False)
    other = await shop.place("order-beside", fulfilment=types_pb2.FULFILMENT_CHOREOGRAPHED)
    telling.claim("another order is CONFIRMED meanwhile", other.state == orders_pb2.ORDER_STATE_CONFIRMED, other)
    command = ["events", "parked", "list", "--key", placed.order_id]
    have_events = [name for name, said in stack.reports.items() if "grpc" in said and name != GATEWAY]
    where = [part for name in have_events for part in ("--address", stack.address(name))]
    parked = await _said(scene, *command, *where, until=_waits_everywhere)
    _tell(scene, command, parked)
    order = await shop.order(placed.order_id)
    telling.claim("its own payment waits behind it", order.state == orders_pb2.ORDER_STATE_PENDING, order)
    reason = "no service of ours wrote it"
    command = ["events", "parked", "skip", "--all", "--key", placed.order_id, "--reason", reason]
    code, output = await _amends(scene, *command, *where)
    _tell(scene, [*command[:-1], f"'{reason}'"], output)
    telling.claim("`amends events` leaves it out", code == 0, output)
    order = await shop.place("order-poison", fulfilment=types_pb2.FULFILMENT_CHOREOGRAPHED)  # waits for its end
    telling.claim("then the order is CONFIRMED", order.state == orders_pb2.ORDER_STATE_CONFIRMED, order)


async def _flows(scene: Scene, *arguments: str, until: str = "LATE") -> str:
    """Ask `amends flows` until it says something; tell and return what it says."""
    output = await _said(
        scene, "flows", *arguments, "--address", scene.stack.address("monitor"), until=lambda said: until in said
    )
    _tell(scene, ["flows", *arguments], output)
    return output


def _waits_everywhere(parked: str) -> bool:
    """Return whether the services that an order needs next have parked the poison, and its payment behind it."""
    rows = [line.split() for line in parked.splitlines() if line]
    found = {name: [row for row in rows if row[0].startswith(f"{name}/")] for name in ("orders", "shipping")}
    return all(len(waiting) == 2 for waiting in found.values())  # the poison, and the payment


async def _said(scene: Scene, *command: str, until: Callable[[str], bool]) -> str:
    """Run a command again and again until it says what is waited for; return what it says."""
    end = asyncio.get_running_loop().time() + END.total_seconds()
    while True:
        _, output = await _amends(scene, *command)
        if until(output):
            return output
        if asyncio.get_running_loop().time() > end:
            raise TimeoutError(f"`amends {' '.join(command)}` never says what is waited for: {output}")
        await asyncio.sleep(0.1)


def _tell(scene: Scene, command: list[str], output: str) -> None:
    scene.telling.say(f"  $ amends {' '.join(command)}")
    for line in output.splitlines():
        scene.telling.say(f"  {line}")


async def the_mail_that_came(scene: Scene) -> None:
    """Tell what the customer was written about an order that succeeded, and about one that did not."""
    shop, telling, stack, page = scene.shop, scene.telling, scene.stack, scene.stack.inbox
    telling.title("The mail that came", f"what {EMAIL_ADDRESS} was written about the first two orders")
    good = await mail_with(page, "Your order order-1 is confirmed")
    bad = await mail_with(page, "We cannot fulfil your order order-2")
    telling.say(f"  Subject: {good.subject}")
    for line in good.text.splitlines():
        telling.say(f"  | {line}".rstrip())
    order = await shop.order("order-1")
    telling.claim(
        "order-1 is confirmed, and the mail says where its parcel can be followed",
        good.recipient == EMAIL_ADDRESS and order.tracking_id in good.text,
        good,
    )
    telling.claim("order-2 cannot be fulfilled, because the card was declined", "card was declined" in bad.text, bad)
    told = await messages_about(stack.address("notifications"), "order-1", stack.certificates)
    sent = [message for message in told if message.message_id == good.message_id]
    telling.claim(
        "the notifications service says that this mail was sent, once",
        [(one.state, one.attempts) for one in sent] == [(notifications_pb2.MESSAGE_STATE_SENT, 1)],
        told,
    )


async def an_account_is_closed(scene: Scene) -> None:
    """Tell how what is known of a person goes from every database when the account is closed."""
    telling, stack = scene.telling, scene.stack
    telling.title("An account is closed", "four services know something of a person, and none calls another")
    tokens = await accounts.open_account(stack.address("identity"), stack.certificates)
    await accounts.become_known(tokens, stack.address("customers"), stack.address("marketing"), stack.certificates)
    who = {"identity", "customers", "notifications"}
    known = await accounts.until_known(stack.databases, who)
    telling.say(f"  {accounts.NAME} is in {', '.join(await accounts.places_of(stack.databases))}")
    telling.claim("who signs in, who orders and where to write is known; not to marketing", known == who, known)
    await accounts.close_account(stack.address("identity"), tokens.access_token, stack.certificates)
    known = await accounts.until_known(stack.databases, set())
    telling.claim("no row of any table has the name or the e-mail address any more", not known, known)


async def without_the_catalogue(scene: Scene) -> None:
    """Tell how a customer orders while the catalogue is dead."""
    await front_door.an_order_without_the_catalogue(scene.stack, scene.telling)


async def search_under_load(scene: Scene) -> None:
    """Tell how search is built anew while people search."""
    await front_door.search_is_built_anew(scene.stack, scene.telling)


async def _told(scene: Scene, order_id: str, *last: str) -> list[str]:
    """Show the events of an order, once these are among them; return what they are called, as they happened."""
    end = asyncio.get_running_loop().time() + END.total_seconds()
    while True:
        events = await events_of(scene.stack.nats.url, order_id)
        names = [name_of(event) for event in events]
        if set(last) <= set(names):
            break
        if asyncio.get_running_loop().time() > end:
            raise TimeoutError(f"{order_id} has only the events {', '.join(names)}")
        await asyncio.sleep(0.05)
    for event in events:
        since = (event.occurred_at - events[0].occurred_at).total_seconds()
        scene.telling.say(f"  {since:+8.3f}s {name_of(event):<17} {event.source}")
    return names


async def _rejected(scene: Scene, order_id: str) -> None:
    order = await scene.shop.order(order_id)
    scene.telling.claim(f"the order is REJECTED: {order.reason}", order.state == orders_pb2.ORDER_STATE_REJECTED, order)


async def _run_id(scene: Scene, order_id: str) -> str:
    """Return the order's run, which begins a moment after the order is accepted."""
    for _ in range(200):
        order = await scene.shop.order(order_id)
        if order.run_id:
            return order.run_id
        await asyncio.sleep(0.05)
    raise LookupError(f"{order_id} has no run")


async def _patiently(place: Callable[[], Awaitable[object]]) -> None:
    """Send an order again while it cannot be taken, as customers do: it is the same order, so nothing happens twice."""
    while True:
        try:
            await place()
            return
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise
            await asyncio.sleep(0.1)


async def _all_ended(scene: Scene, names: list[str]) -> list[str]:
    """Return the orders that have ended; wait until all have, or the time is over."""
    open_ = set(names)
    end = asyncio.get_running_loop().time() + END.total_seconds()
    while open_ and asyncio.get_running_loop().time() < end:
        for name in sorted(open_):
            if (await scene.shop.order(name)).state != orders_pb2.ORDER_STATE_PENDING:
                open_.discard(name)
        await asyncio.sleep(0.1)
    return [name for name in names if name not in open_]


async def _amends(scene: Scene, *arguments: str) -> tuple[int, str]:
    """Run the command line as a person does; return the exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "amends_cli", *arguments),
        env=os.environ | scene.stack.for_people(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode(errors="replace")


STORIES: tuple[Story, ...] = (
    an_order,
    the_card_is_declined,
    shipping_has_no_slot,
    payments_answers_late,
    the_orchestrator_is_killed,
    refunds_are_refused,
    an_order_by_events,
    an_order_by_events_is_undone,
    an_order_by_events_is_late,
    an_event_is_poison,
    the_mail_that_came,
    without_the_catalogue,
    search_under_load,
    an_account_is_closed,
)
