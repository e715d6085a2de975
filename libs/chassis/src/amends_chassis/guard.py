"""Makes the barrier of a service that has guarded methods. Called by `service.Runtime` after assembly."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from amends_contracts import descriptor_set
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from amends.options.v1 import options_pb2

if TYPE_CHECKING:
    from amends_barrier import Barrier

    from amends_chassis.database import Pool


def barrier(pool: "Pool", services: Iterable[str]) -> "Barrier | None":
    """Return the barrier over `pool` for the guarded methods of `services`, None when they have none."""
    wanted = set(services)
    descriptors = descriptor_set()
    if not any(_has_guarded(file, wanted) for file in descriptors.file):
        return None
    from amends_barrier import Barrier

    return Barrier.from_descriptors(pool, descriptors, wanted)


def _has_guarded(file: FileDescriptorProto, wanted: set[str]) -> bool:
    return any(
        method.options.Extensions[options_pb2.method].guarded
        for service in file.service
        if f"{file.package}.{service.name}" in wanted
        for method in service.method
    )
