"""What services export: facts of all that they keep, or of one key, for what their logs do not have any more."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Generic

from grpc.aio import AioRpcError, Channel

from amends.events.v1 import export_pb2
from amends.events.v1.export_pb2_grpc import ExportServiceStub
from amends_chassis.errors import Unavailable
from amends_chassis.projections.projection import F

if TYPE_CHECKING:
    from amends.events.v1.export_pb2_grpc import ExportServiceAsyncStub


class ExportClient(Generic[F]):
    """The exports of all services that a projection reads, by the names of its kind's sources."""

    def __init__(
        self, channels: Mapping[str, Channel], facts_of: Callable[[Iterable[export_pb2.ExportedEvent]], list[F]]
    ) -> None:
        """Ask over these channels; `facts_of` reads what is exported, and leaves out what says nothing."""
        self._facts_of = facts_of
        self._stubs: dict[str, ExportServiceAsyncStub] = {
            source: ExportServiceStub(channel) for source, channel in channels.items()
        }

    async def page(self, source: str, token: str) -> tuple[list[F], str]:
        """Return a page of a service's facts, and the token of the next; an empty one after the last.

        Raises Unavailable.
        """
        answer = await self._ask(source, export_pb2.ExportRequest(page_token=token))
        return self._facts_of(answer.events), answer.next_page_token

    async def one(self, source: str, key: str) -> list[F]:
        """Return what a service knows of one key. Raises Unavailable."""
        answer = await self._ask(source, export_pb2.ExportRequest(key=key))
        return self._facts_of(answer.events)

    async def _ask(self, source: str, request: export_pb2.ExportRequest) -> export_pb2.ExportResponse:
        try:
            return await self._stubs[source].Export(request)
        except AioRpcError as error:
            raise Unavailable("EXPORT_FAILED", f"{source} does not export: {error.code().name}") from error
