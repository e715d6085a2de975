"""`audit`: checks the books of a shop and names what is wrong. Reads six databases, changes nothing.

`amends audit` checks what the orchestrator promised about runs. This checks what the shop's services made of it.
"""

import os
from collections.abc import Mapping

import asyncpg
from rich.console import Console

from amends_demo import books, laws
from amends_demo.place import ShopFolder

VARIABLE = "AMENDS_SHOP_DATABASES"
SHOWN = 20
"""The number of violations of one law, and of orders that wait for a person, that are named."""


class DatabasesUnknownError(RuntimeError):
    """It is not known where the books are. The text says what to do."""


def databases(place: ShopFolder) -> dict[str, str]:
    """Return the URLs of the six databases: from the environment, else those of the shop that runs here.

    Raises DatabasesUnknownError.
    """
    said = os.environ.get(VARIABLE, "")
    found = dict(part.partition("=")[::2] for part in said.split())
    if not said:
        processes = place.read_state().get("processes", {}) if place.running else {}
        names = {"orchestrator": "orchestrator-1"}
        found = {
            name: processes[names.get(name, name)]["database"]
            for name in books.DATABASES
            if names.get(name, name) in processes
        }
    missing = [name for name in books.DATABASES if not found.get(name)]
    if missing and said:
        raise DatabasesUnknownError(
            f"{VARIABLE} has no URL for {', '.join(missing)}: write NAME=URL for each, with blanks"
        )
    if missing:
        raise DatabasesUnknownError(
            f"Nothing runs here. `make up` starts the shop; for one elsewhere set {VARIABLE}"
            f" to NAME=URL for each of {', '.join(books.DATABASES)}."
        )
    return found


async def audit(urls: Mapping[str, str], console: Console) -> int:
    """Check the books and print what was found. 0 when every law holds, 1 when one is broken, 2 without an answer."""
    try:
        found = await books.read(urls)
    except (OSError, asyncpg.PostgresError, ValueError) as error:
        console.print(f"The books cannot be read: {type(error).__name__}: {error}", markup=False)
        return 2
    return report(found, console)


def report(found: books.Books, console: Console) -> int:
    """Print the judgement. 1 when a law is broken, else 0."""
    if found.is_empty:
        console.print("There is nothing to check: nothing was ordered, paid or run.")
        return 0
    states = [order.state for order in found.orders.values()]
    console.print(
        f"{len(states)} orders: {states.count('confirmed')} confirmed, {states.count('rejected')} rejected,"
        f" {states.count('refunded')} refunded, {states.count('pending')} pending; {len(found.payments)} payments,"
        f" {len(found.shipments)} parcels, {len(found.runs)} runs",
        soft_wrap=True,
    )
    waiting = sorted(laws.waiting(found).items())
    for order_id, why in waiting[:SHOWN]:
        console.print(f"waits for a person  order {order_id}: {why}", markup=False, soft_wrap=True)
    if len(waiting) > SHOWN:
        console.print(f"waits for a person  and {len(waiting) - SHOWN} more", markup=False)
    is_broken = False
    for law in laws.LAWS:
        for number, what in enumerate(law.broken(found)):
            is_broken = True
            if number < SHOWN:
                console.print(f"{law.name}  {what}", markup=False, soft_wrap=True)
            elif number == SHOWN:
                console.print(f"{law.name}  and more", markup=False)
    console.print("The books are wrong." if is_broken else f"All {len(laws.LAWS)} laws of the shop hold.")
    return int(is_broken)
