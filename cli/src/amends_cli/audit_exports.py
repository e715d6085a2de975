"""What services keep, told as the events that led to it (amends.events.v1.ExportService), for `amends audit`.

Called by `audit_events`, before it reads anything else: what is told here is in an outbox or in the log by then.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import grpc.aio
from amends_chassis.dial import dial

from amends.events.v1 import export_pb2 as pb
from amends.events.v1.export_pb2_grpc import ExportServiceStub
from amends_cli.audit_databases import UnreadableError
from amends_cli.certificates import own_certificates

TIMEOUT = timedelta(seconds=30)
PAGE = 1000


@dataclass(frozen=True, slots=True)
class KeptChange:
    """A change that a service keeps, and that an event has to tell of."""

    address: str
    type: str
    key: str
    version: int
    occurred_at: datetime

    @property
    def topic(self) -> str:
        """Return the topic of its event: the package of its type."""
        return self.type.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class Exports:
    """The services that are asked."""

    addresses: Sequence[str] = ()
    """Those that were named."""
    found: Sequence[str] = ()
    """Those that were found, some of which may export nothing."""


async def read_exports(exports: Exports) -> tuple[list[KeptChange], list[str]]:
    """Return all changes that the services keep, and which of those that were found did not say.

    Raises UnreadableError when one that was named does not say.
    """
    changes: list[KeptChange] = []
    silent: list[str] = []
    for address in exports.addresses:
        try:
            changes += await _read(address)
        except grpc.aio.AioRpcError as error:
            raise UnreadableError(f"{address} does not export what it keeps: {error.code().name}") from None
    for address in exports.found:
        try:
            changes += await _read(address)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                silent.append(f"{address} does not export what it keeps: {error.code().name}")
    return changes, silent


async def _read(address: str) -> list[KeptChange]:
    changes: list[KeptChange] = []
    request = pb.ExportRequest(page_size=PAGE)
    async with dial(address, certificates=own_certificates()) as channel:
        stub = ExportServiceStub(channel)
        while True:
            page = await stub.Export(request, timeout=TIMEOUT.total_seconds())
            for one in page.events:
                at = one.occurred_at.ToDatetime(UTC)
                changes.append(KeptChange(address, one.type, one.key, one.version, at))
            if not page.next_page_token:
                return changes
            request.page_token = page.next_page_token


class Untold:
    """Changes of which no event was seen yet, by topic."""

    def __init__(self, changes: Sequence[KeptChange]) -> None:
        self.compared = len(changes)
        self._left = {(one.type, one.key, one.version): one for one in changes}
        self._known_since: dict[str, datetime] = {}

    @property
    def topics(self) -> set[str]:
        """Return the topics of the changes."""
        return {one.topic for one in self._left.values()}

    def told(self, type_: str, key: str, version: int) -> None:
        """Note an event, of the log or of an outbox."""
        self._left.pop((type_, key, version), None)

    def forgotten(self, topic: str, until: datetime) -> None:
        """Note that a log of the topic has forgotten what happened until then."""
        self._known_since[topic] = max(until, self._known_since.get(topic, until))

    def left(self, topic: str) -> list[KeptChange]:
        """Return the changes of a topic whose events should have been seen and were not, in the order of their keys."""
        since = self._known_since.get(topic)
        found = [one for one in self._left.values() if one.topic == topic and (not since or one.occurred_at > since)]
        return sorted(found, key=lambda one: (one.key, one.version))
