"""The guarded methods and the methods that undo them, read from the contracts.

Called by `Barrier.from_descriptors`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from google.protobuf.descriptor_pb2 import (
    FileDescriptorSet,
    MethodDescriptorProto,
    MethodOptions,
    ServiceDescriptorProto,
)

from amends.options.v1 import options_pb2


@dataclass(frozen=True, slots=True)
class Guarded:
    """One guarded method: bare names of the method of its service that undoes it, and of those that it undoes."""

    compensated_by: str = ""
    compensates: tuple[str, ...] = ()


def guarded_methods(descriptors: FileDescriptorSet, services: Iterable[str]) -> dict[str, Guarded]:
    """Return the guarded methods of services (by full name) by path, "/package.Service/Method".

    Raises ValueError for a service that is not there and for a contract that cannot be kept: a stream, or a
    compensation that is missing or not guarded.
    """
    known = {f"{file.package}.{one.name}".lstrip("."): one for file in descriptors.file for one in file.service}
    found: dict[str, Guarded] = {}
    for name in services:
        if name not in known:
            raise ValueError(f"the descriptors have no service {name}")
        found |= _of_service(name, known[name])
    return found


def _of_service(name: str, service: ServiceDescriptorProto) -> dict[str, Guarded]:
    guarded = {method.name: _contract(method) for method in service.method if _contract(method).guarded}
    for method in service.method:
        if method.name not in guarded:
            continue
        if method.client_streaming or method.server_streaming:
            raise ValueError(f"{name}/{method.name} is a stream and cannot be guarded")
        undo = guarded[method.name].compensated_by
        if undo and undo not in guarded:
            raise ValueError(f"{name}/{method.name} is compensated by {undo}, which is no guarded method of {name}")
    return {
        f"/{name}/{method}": Guarded(
            compensated_by=contract.compensated_by,
            compensates=tuple(other for other, its in guarded.items() if its.compensated_by == method),
        )
        for method, contract in guarded.items()
    }


def _contract(method: MethodDescriptorProto) -> options_pb2.MethodContract:
    # Parsed again: descriptors that were read before the option was known keep it as an unknown field.
    options = MethodOptions.FromString(method.options.SerializeToString())
    return options.Extensions[options_pb2.method]
