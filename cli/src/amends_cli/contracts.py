"""Contracts and definitions that are in force, for commands that compile sagas here: asked of the running system.

The participants' contracts come by reflection, from this machine or through ports that are forwarded to the cluster.
Called by `explore`, and by `probe` for the service under test.
"""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from amends_cli import cluster, connection, descriptors, manifests
from amends_cli.certificates import own_certificates
from amends_cli.failure import CliError
from amends_cli.manifests import Manifest, Text
from amends_cli.resources import ListedKind, fetch_all

if TYPE_CHECKING:
    import grpc.aio
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

IN_CLUSTER = re.compile(r"dns:///([a-z0-9-]+)\.([a-z0-9-]+)\.svc(?:\.[a-z0-9.-]+)?:(\d+)")
HINT = "Give contracts with --descriptors FILE or --protos DIR."


async def reflect(channel: "grpc.aio.Channel", service: str) -> "FileDescriptorSet":
    """Read the contract of one service by its server's reflection. Raises CliError."""
    from amends_chassis import reflection
    from amends_saga.descriptors import DescriptorError, parse_set

    try:
        return parse_set(await reflection.reflect(channel, service))
    except (reflection.ReflectionError, DescriptorError) as error:
        raise CliError(f"the contract of {service} is not known: {error}", HINT) from None


def in_force(documents: list[Manifest], namespace: str, address: str | None) -> "tuple[list[Text], FileDescriptorSet]":
    """Return what the sagas need and the files do not have: participants, policies and all contracts.

    Raises CliError.
    """
    own = {(document.kind, document.namespace or namespace, document.name) for document in documents}
    called = _called(documents)
    homes = {document.namespace or namespace for document in documents if document.kind == "Saga"}
    try:
        with connection.connect(address) as server:
            known = _meant(fetch_all(server, ListedKind.PARTICIPANTS, ""), called, homes)
            policies = [policy for home in sorted(homes) for policy in fetch_all(server, ListedKind.POLICIES, home)]
    except CliError as failure:
        raise CliError(f"no contracts were given, and {failure.message}", HINT) from None
    texts = [
        Text(f"{kind} {one.namespace}/{one.name} in force", one.manifest)
        for kind, found in (("Participant", known), ("RetryPolicy", policies))
        for one in found
        if (kind, one.namespace, one.name) not in own
    ]
    sources = [(f"{one.namespace}/{one.name}", asyncio.run(_contract(one))) for one in known]
    if not sources:
        services = ", ".join(sorted(called)) or "any service"
        raise CliError(f"the orchestrator knows no participant for {services}", "Put one in force with `amends apply`.")
    return texts, descriptors.merge(sources)


def _called(documents: list[Manifest]) -> set[str]:
    """Return the services that the sagas call."""
    sagas = [document.content.get("spec") for document in documents if document.kind == "Saga"]
    found: set[str] = set()

    def look(value: Any) -> None:
        for name, inner in value.items() if isinstance(value, dict) else ():
            if name == "call" and isinstance(inner, str):
                found.add(inner.partition("/")[0])
            look(inner)
        for inner in value if isinstance(value, list) else ():
            look(inner)

    for spec in sagas:
        look(spec)
    return found


def _meant(participants: list[Any], services: set[str], homes: set[str]) -> list[Any]:
    """Return the participants that sagas of these namespaces use: their own, else those that list them as callers."""
    meant: dict[tuple[str, str], Any] = {}
    for service in services:
        serving = [one for one in participants if one.service == service]
        for home in homes:
            own = [one for one in serving if one.namespace == home]
            for one in own or [one for one in serving if home in _callers(one)]:
                meant[one.namespace, one.name] = one
    return list(meant.values())


def _callers(participant: Any) -> list[str]:
    spec = manifests.content(participant.manifest).get("spec")
    callers = spec.get("callers") if isinstance(spec, dict) else None
    return callers if isinstance(callers, list) else []


async def _contract(participant: Any) -> "FileDescriptorSet":
    from amends_chassis.dial import dial

    with _reachable(participant.target) as target:
        async with dial(target, certificates=own_certificates()) as channel:
            return await reflect(channel, participant.service)


@contextmanager
def _reachable(target: str) -> Iterator[str]:
    """Yield an address at which a participant can be reached from here."""
    through = cluster.current()
    found = IN_CLUSTER.fullmatch(target)
    if through is None or found is None:
        yield target
        return
    with cluster.Forward(through, cluster.Service(found[2], found[1], int(found[3]))) as forward:
        yield forward.address
