"""What a service brings: how its projection takes in what is told, from which logs, and from whose exports.

`rebuild` and `serving` work with it. The tables are made by functions of the service's migrations: `make_projection`
(version, layout), `switch_projection` (version) and `drop_projection` (version), with the tables `projection` and
`projection_export`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from amends_events import Batches, Topic

if TYPE_CHECKING:
    from amends_chassis.database import Connection

F = TypeVar("F")
"""What one event says, as the service reads it."""
FactType = TypeVar("FactType", contravariant=True)


class Projection(Protocol[FactType]):
    """One projection, whether it serves or not. It may be given anything twice, late, and from two sides at once."""

    @property
    def version(self) -> int:
        """Return its number."""
        ...

    @property
    def consumer(self) -> str:
        """Return the name under which it consumes."""
        ...

    @property
    def batches(self) -> Batches:
        """Return what its consumer handles. Rows know what they have seen, so no inbox is needed."""
        ...

    async def take(self, connection: "Connection", told: Iterable[FactType]) -> None:
        """Take facts in, in the transaction of `connection`; what is known already changes nothing."""
        ...


@dataclass(frozen=True, slots=True)
class ProjectionKind(Generic[F]):
    """The projections of one service."""

    name: str
    """The first part of their consumers' names, e.g. reporting."""
    layout: int
    """What the tables look like that this code writes: the number of make_projection's last change."""
    sources: Mapping[str, Topic]
    """The topics that are read, by the services that export what they have told there."""
    batch: int
    """So many events are one transaction at most."""
    open: Callable[[int], Projection[F]]
    """Returns the projection of a number."""

    def consumer_of(self, version: int) -> str:
        """Return the name under which a projection consumes."""
        return f"{self.name}@{version}"
