"""Makes the barrier of a service that has guarded methods. Called by `service.Runtime` after assembly."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from amends_barrier import Barrier
from amends_contracts import descriptor_set

if TYPE_CHECKING:
    from amends_chassis.database import Pool


def barrier(pool: "Pool", services: Iterable[str]) -> Barrier | None:
    """Return the barrier over `pool` for the guarded methods of `services`, None when they have none.

    Services that our contracts do not know have none: nobody said so.
    """
    descriptors = descriptor_set()
    known = {f"{file.package}.{service.name}" for file in descriptors.file for service in file.service}
    made = Barrier.from_descriptors(pool, descriptors, known.intersection(services))
    return made if made.methods else None
