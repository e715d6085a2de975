"""The laws of the shop's books: what must hold between its services, whatever happened. Pure; `books.py` reads.

`audit` names what is broken, and the demo states each law at its end. A law about an order speaks of orders that have
ended only, so it holds while others are on their way.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from amends_demo.books import COMPENSATED, COMPENSATING, COMPLETED, PARKED, Books, OrderRow

Violations = Iterator[str]
"""What breaks a law: each a few words that name the order or the account."""


@dataclass(frozen=True, slots=True)
class Law:
    """One law, with what is said when it is broken and when it holds."""

    name: str
    """The breach of the law, in words for people and for programs."""
    holds: str
    """What is true of all books that keep it."""
    broken: Callable[[Books], Violations]


LAWS: list[Law] = []


def law(name: str, holds: str) -> Callable[[Callable[[Books], Violations]], Callable[[Books], Violations]]:
    """Register a function in `LAWS` as a law that every story is checked against."""

    def add(broken: Callable[[Books], Violations]) -> Callable[[Books], Violations]:
        LAWS.append(Law(name, holds, broken))
        return broken

    return add


def _of(books: Books, state: str) -> Iterator[tuple[str, OrderRow]]:
    return ((order_id, order) for order_id, order in books.orders.items() if order.state == state)


def _undone(books: Books) -> Iterator[tuple[str, OrderRow]]:
    """Return the rejected orders of which everything must be undone by now."""
    return ((order_id, order) for order_id, order in _of(books, "rejected") if not order.is_new)


def money(amount: tuple[str, int]) -> str:
    """Return an amount of minor units as people read it, e.g. 21.90 EUR."""
    currency, minor = amount
    return f"{minor / 100:,.2f} {currency}"


@law("rejected, and charged", "no rejected order was charged, or it got everything back")
def rejected_and_charged(books: Books) -> Violations:
    """Find rejected orders whose money stayed here."""
    for order_id, _ in _undone(books):
        payment = books.payments.get(order_id)
        if payment is not None and payment.state == "charged":
            yield f"order {order_id}: payment {payment.payment_id} of {money(payment.amount)} stands"


@law("rejected, and shipped", "no rejected order has a parcel")
def rejected_and_shipped(books: Books) -> Violations:
    """Find rejected orders with a parcel."""
    for order_id, _ in _undone(books):
        if order_id in books.shipments:
            yield f"order {order_id}: parcel {books.shipments[order_id].tracking_id}"


@law("rejected, and reserved", "no stock is kept or sold for a rejected order")
def rejected_and_reserved(books: Books) -> Violations:
    """Find rejected orders that stock is kept for."""
    for order_id, _ in _undone(books):
        reservation = books.reservations.get(order_id)
        if reservation is not None and reservation.state != "released":
            yield f"order {order_id}: its stock is {reservation.state}"


@law("rejected, and its run was not undone", "every rejected order has no run, or a compensated one")
def rejected_and_not_undone(books: Books) -> Violations:
    """Find rejected orders whose run goes on, waits or was completed."""
    for order_id, _ in _of(books, "rejected"):
        if books.runs.get(order_id, COMPENSATED) != COMPENSATED:
            yield f"order {order_id}: its run is in state {books.runs[order_id]}"


@law("confirmed without papers", "every confirmed order has its tracking id and its payment id")
def confirmed_without_papers(books: Books) -> Violations:
    """Find confirmed orders that do not say which parcel and which payment are theirs."""
    for order_id, order in _of(books, "confirmed"):
        if not order.tracking_id or not order.payment_id:
            yield f"order {order_id}: tracking id {order.tracking_id!r}, payment id {order.payment_id!r}"


@law("confirmed, and not paid", "every confirmed order is paid, with its total and by the payment it names")
def confirmed_and_not_paid(books: Books) -> Violations:
    """Find confirmed orders without their money."""
    for order_id, order in _of(books, "confirmed"):
        payment = books.payments.get(order_id)
        if payment is None:
            yield f"order {order_id}: there is no payment"
        elif payment.state != "charged" or payment.amount != order.total:
            yield f"order {order_id}: it costs {money(order.total)}, {money(payment.amount)} were {payment.state}"
        elif order.payment_id and payment.payment_id != order.payment_id:
            yield f"order {order_id}: it names payment {order.payment_id}, and has {payment.payment_id}"


@law("confirmed, and not shipped", "every confirmed order has a parcel with its articles, and names it")
def confirmed_and_not_shipped(books: Books) -> Violations:
    """Find confirmed orders without their parcel."""
    for order_id, order in _of(books, "confirmed"):
        parcel = books.shipments.get(order_id)
        if parcel is None:
            yield f"order {order_id}: there is no parcel"
        elif parcel.lines != order.lines:
            yield f"order {order_id}: other articles are in its parcel"
        elif order.tracking_id and parcel.tracking_id != order.tracking_id:
            yield f"order {order_id}: it names parcel {order.tracking_id}, and has {parcel.tracking_id}"


@law(
    "confirmed, and its stock is elsewhere",
    "every confirmed order has its stock, which has left in the end",
)
def confirmed_and_not_sold(books: Books) -> Violations:
    """Find confirmed orders whose stock was given back, was never kept, or is still there although all is done."""
    for order_id, order in _of(books, "confirmed"):
        reservation = books.reservations.get(order_id)
        if reservation is None or reservation.state == "released":
            yield f"order {order_id}: nothing is kept for it"
        elif reservation.lines != order.lines:
            yield f"order {order_id}: other articles were kept for it"
        elif order.is_finished and reservation.state != "dispatched":
            yield f"order {order_id}: its stock is still {reservation.state}"


@law("confirmed, and its run was undone", "no confirmed order has a run that was undone")
def confirmed_and_undone(books: Books) -> Violations:
    """Find confirmed orders whose run goes back."""
    for order_id, _ in _of(books, "confirmed"):
        if books.runs.get(order_id) in (COMPENSATING, COMPENSATED):
            yield f"order {order_id}: its run is in state {books.runs[order_id]}"


@law("choreographed, and orchestrated too", "no choreographed order has a run")
def choreographed_with_run(books: Books) -> Violations:
    """Find choreographed orders that a saga has worked on too."""
    for order_id, order in books.orders.items():
        if order.fulfilment == "choreographed" and order_id in books.runs:
            yield f"order {order_id}: its run is in state {books.runs[order_id]}"


@law("refunded, and charged", "every refunded order got its money back, in a run that a person ended")
def refunded_and_charged(books: Books) -> Violations:
    """Find refunded orders whose money stayed here, or whose run did not end so."""
    for order_id, _ in _of(books, "refunded"):
        payment = books.payments.get(order_id)
        if payment is None or payment.state != "refunded":
            yield f"order {order_id}: {'there is no payment' if payment is None else f'its payment is {payment.state}'}"
        if books.runs.get(order_id) != COMPLETED:
            yield f"order {order_id}: its run is in state {books.runs.get(order_id)}"


@law("undone, and an effect stands", "a compensated run has left no money, parcel or stock behind")
def undone_and_effect(books: Books) -> Violations:
    """Find compensated runs with an effect; those of rejected orders have laws of their own."""
    for order_id, state in books.runs.items():
        order = books.orders.get(order_id)
        if state != COMPENSATED or (order is not None and order.state == "rejected"):
            continue
        payment, reservation = books.payments.get(order_id), books.reservations.get(order_id)
        if payment is not None and payment.state == "charged":
            yield f"run of {order_id}: payment {payment.payment_id} of {money(payment.amount)} stands"
        if order_id in books.shipments:
            yield f"run of {order_id}: parcel {books.shipments[order_id].tracking_id}"
        if reservation is not None and reservation.state != "released":
            yield f"run of {order_id}: its stock is {reservation.state}"


@law("charged for nobody", "every payment belongs to an order or a run")
def charged_for_nobody(books: Books) -> Violations:
    """Find payments of orders that nobody knows."""
    known = books.orders.keys() | books.runs.keys()
    for order_id, payment in books.payments.items():
        if payment.state == "charged" and not payment.is_new and order_id not in known:
            yield f"payment {payment.payment_id} of {money(payment.amount)} for {order_id}"


@law("charged or refunded twice", "every payment is charged once and refunded at most once")
def charged_twice(books: Books) -> Violations:
    """Find payments whose entries are other than their state says."""
    wanted = {"charged": ["charge"], "refunded": ["charge", "refund"]}
    for order_id, payment in books.payments.items():
        if sorted(payment.entries) != wanted[payment.state]:
            yield f"payment {payment.payment_id} of {order_id} is {payment.state}: {', '.join(payment.entries)}"


@law("money out of nothing", "every ledger entry and each currency's accounts sum to zero")
def money_from_nothing(books: Books) -> Violations:
    """Find entries and currencies that do not sum to zero."""
    yield from (f"entry {entry_id}" for entry_id in books.unbalanced)
    sums: Counter[str] = Counter()
    for (_, currency), minor in books.balances.items():
        sums[currency] += minor
    yield from (f"all accounts together hold {money((currency, minor))}" for currency, minor in sums.items() if minor)


@law("the till is wrong", "the merchant holds what was charged and not refunded, in each currency")
def till(books: Books) -> Violations:
    """Find currencies in which the merchant's balance differs from the payments that stand."""
    due: Counter[str] = Counter()
    for payment in books.payments.values():
        if payment.state == "charged":
            due[payment.amount[0]] += payment.amount[1]
    held = {currency: minor for (account, currency), minor in books.balances.items() if account == "merchant"}
    for currency in sorted(due.keys() | held):
        if due[currency] != held.get(currency, 0):
            yield f"{money((currency, held.get(currency, 0)))} held, {money((currency, due[currency]))} charged"


@law("stock out of nothing", "every article: received = available + reserved + sold, as its movements say")
def stock_from_nothing(books: Books) -> Violations:
    """Find articles whose pieces are not where the reservations and deliveries say."""
    held: Counter[str] = Counter()
    sold: Counter[str] = Counter()
    for reservation in books.reservations.values():
        if reservation.state != "released":
            (held if reservation.state == "held" else sold).update(reservation.lines)
    for sku, stock in books.stock.items():
        if stock.received != stock.available + stock.reserved + stock.sold or stock.received != stock.delivered:
            yield f"{sku}: {stock}"
        elif (stock.reserved, stock.sold) != (held[sku], sold[sku]):
            yield f"{sku}: {held[sku]} kept and {sold[sku]} sold for orders, and not {stock.reserved} and {stock.sold}"


@law("slots do not match parcels", "the carriers' booked slots are the parcels")
def slots(books: Books) -> Violations:
    """Find carriers with more or fewer booked slots than parcels."""
    parcels = Counter(parcel.carrier for parcel in books.shipments.values())
    for (country, carrier), booked in books.slots.items():
        if booked != parcels[country, carrier]:
            yield f"{carrier} to {country}: {booked} booked, {parcels[country, carrier]} parcels"


@law("a card token was kept", "no card token outlives the start of its run")
def token_kept(books: Books) -> Violations:
    """Find orders that still have a token though their run or they themselves have ended."""
    for order_id, order in books.orders.items():
        if order.has_token and (order.state != "pending" or books.runs.get(order_id) in (COMPLETED, COMPENSATED)):
            yield f"order {order_id}"


@law("a journal has a gap", "no journal has a gap")
def journal_gap(books: Books) -> Violations:
    """Find runs whose journal has a gap."""
    yield from (f"run of {order_id}" for order_id in books.gaps)


@law("an event was not published", "every event was given to the broker")
def event_kept(books: Books) -> Violations:
    """Find services whose events wait in the outbox."""
    yield from (f"{service}: {events} events wait" for service, events in books.late_events.items())


@law("the report and the ledger differ", "the report has every payment and every refund of the ledger, and no other")
def report_differs(books: Books) -> Violations:
    """Find payments that the report does not have as the ledger does. What is new may be on its way to it."""
    reported = books.reported
    for order_id, payment in books.payments.items():
        if not payment.is_new and reported.taken.get(order_id) != payment.amount:
            yield f"order {order_id}: {money(payment.amount)} were taken, and are not reported"
        if not payment.is_new and payment.state == "refunded" and order_id not in reported.refunded:
            yield f"order {order_id}: {money(payment.amount)} were refunded, and are not reported"
    for order_id, amount in reported.taken.items():
        if order_id not in books.payments or books.payments[order_id].amount != amount:
            yield f"order {order_id}: {money(amount)} are reported, and were not taken"
    for order_id, amount in reported.refunded.items():
        if order_id not in books.payments or books.payments[order_id].state != "refunded":
            yield f"order {order_id}: a refund of {money(amount)} is reported, and there is none"


@law("the report does not add up", "the report's sums of its days are the sums of its orders")
def report_adds_up(books: Books) -> Violations:
    """Find currencies in which the sums of the days differ from those of the orders."""
    sums: Counter[str] = Counter()
    for currency, minor in books.reported.taken.values():
        sums[currency] += minor
    for currency, minor in books.reported.refunded.values():
        sums[currency] -= minor
    for currency in sorted(sums.keys() | books.reported.sums):
        if sums[currency] != books.reported.sums.get(currency, 0):
            of_days = money((currency, books.reported.sums.get(currency, 0)))
            yield f"{of_days} by its days, {money((currency, sums[currency]))} by its orders"


def waiting(books: Books) -> dict[str, str]:
    """Return the orders that a person has to decide, with what there is to decide. They break no law."""
    found = {order_id: order.attention for order_id, order in _of(books, "pending") if order.attention}
    parked = {order_id: "its run is parked" for order_id, state in books.runs.items() if state == PARKED}
    return parked | found
