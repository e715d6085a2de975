"""One projection of orders: its schema, its consumer, and what it has taken in. Made by `parts.py`.

A consumer hands over whole batches, and each becomes one statement. It may be given anything twice, late, and from two
sides at once (stream and export): rows know what they have seen.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from amends_events import Batches, CloudEvent

from shop_reporting import facts, statements
from shop_reporting.facts import TYPES, Fact

if TYPE_CHECKING:
    from amends_chassis.database import Connection

NAME = "reporting"
"""The first part of the names under which projections consume."""
LAYOUT = 1
"""What the tables look like that this code writes: the number of make_projection's last change."""
BATCH = 1_000
"""So many events are one statement at most."""

CountGaps = Callable[[int], None]
"""Is told how many gaps in versions a batch has shown."""


def schema_of(version: int) -> str:
    """Return the schema of a projection."""
    return f"r{version}"


class OrderProjection:
    """A projection of orders, whether it serves or not."""

    def __init__(self, version: int, count_gaps: CountGaps) -> None:
        self.version = version
        self.consumer = f"{NAME}@{version}"
        self.schema = schema_of(version)
        self._take = statements.take(self.schema)
        self._count_gaps = count_gaps

    @property
    def batches(self) -> Batches:
        """Return what its consumer handles. Rows know what they have seen, so no inbox is needed."""
        return Batches(tuple(TYPES.values()), self._handle, remembers=False)

    async def take(self, connection: "Connection", told: Iterable[Fact]) -> None:
        """Take facts in, in the transaction of `connection`; what is known already changes nothing."""
        if columns := facts.columns(told):
            self._count_gaps(await connection.fetchval(self._take, *columns))

    async def _handle(self, connection: Any, events: Sequence[tuple[CloudEvent, Any]]) -> None:
        told = (
            facts.fact(event.type, event.key, event.version, event.occurred_at, message) for event, message in events
        )
        await self.take(connection, told)
