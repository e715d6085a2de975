"""The barrier's fence for whoever does a step upon an event: in a transaction of their own, by the step's key.

Topics have no common order, so an event that undoes may come before the one whose effect it undoes. The rows are those
of guarded calls. `action` and `compensation` are for handlers of events and for workers that do later what an event
asked for.
"""

from typing import Any

from amends_barrier import rows
from amends_barrier.protocol import KEY_FORM


async def action(connection: Any, key: str) -> bool:
    """Take the right to the effect of a step, e.g. `order-1/charge`, in the open transaction of `connection`.

    False says that there is nothing to do: it was done before, or it was undone, even if it never happened. The right
    is committed, or rolled back, with the effect. Waits for another transaction that has taken the key. Raises
    ValueError for a key that no call could have.
    """
    return bool(await connection.fetchval(rows.TAKE_ACTION, _checked(key)))


async def compensation(connection: Any, key: str) -> bool:
    """Take the right to undo the effect of a step, and fence it: it never happens after this was committed.

    False says that there is nothing to undo: the effect never happened, or was undone before. Otherwise as `action`.
    """
    await connection.execute(rows.FENCE, _checked(key))
    # A statement of its own has a snapshot of its own: it sees an action that the first one has waited for.
    return bool(await connection.fetchval(rows.TAKE_COMPENSATION, key))


def _checked(key: str) -> str:
    if not KEY_FORM.fullmatch(key):
        raise ValueError(f"a key has 1 to 255 letters, digits or _.:/+=~-, unlike {key!r}")
    return key
