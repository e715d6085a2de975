"""What the services export: facts of all that they keep, or of one order, for what their logs do not have any more."""

from collections.abc import Iterable, Mapping
from datetime import UTC
from typing import TYPE_CHECKING

from amends_chassis.errors import Unavailable
from grpc.aio import AioRpcError, Channel

from amends.events.v1 import export_pb2
from amends.events.v1.export_pb2_grpc import ExportServiceStub
from shop_reporting.facts import TYPES, Fact, fact

if TYPE_CHECKING:
    from amends.events.v1.export_pb2_grpc import ExportServiceAsyncStub


class ExportClient:
    """The exports of all services, by the names of `facts.SOURCES`."""

    def __init__(self, channels: Mapping[str, Channel]) -> None:
        self._stubs: dict[str, ExportServiceAsyncStub] = {
            source: ExportServiceStub(channel) for source, channel in channels.items()
        }

    async def page(self, source: str, token: str) -> tuple[list[Fact], str]:
        """Return a page of a service's facts, and the token of the next; an empty one after the last.

        Raises Unavailable.
        """
        answer = await self._ask(source, export_pb2.ExportRequest(page_token=token))
        return _facts(answer.events), answer.next_page_token

    async def order(self, source: str, order_id: str) -> list[Fact]:
        """Return what a service knows of one order. Raises Unavailable."""
        answer = await self._ask(source, export_pb2.ExportRequest(key=order_id))
        return _facts(answer.events)

    async def _ask(self, source: str, request: export_pb2.ExportRequest) -> export_pb2.ExportResponse:
        try:
            return await self._stubs[source].Export(request)
        except AioRpcError as error:
            raise Unavailable("EXPORT_FAILED", f"{source} does not export: {error.code().name}") from error


def _facts(events: Iterable[export_pb2.ExportedEvent]) -> list[Fact]:
    return [
        fact(
            event.type,
            event.key,
            event.version,
            event.occurred_at.ToDatetime(UTC),
            TYPES[event.type].FromString(event.payload),
        )
        for event in events
        if event.type in TYPES
    ]
