"""RunService: one short method for each RPC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import grpc.aio
from amends_chassis.errors import InvalidArgument

from amends.saga.v1 import run_service_pb2 as pb
from amends.saga.v1.run_service_pb2_grpc import RunServiceServicer, add_RunServiceServicer_to_server
from amends_orchestrator.api.request_checks import check_request
from amends_orchestrator.api.run_decisions import RunDecisions
from amends_orchestrator.api.run_queries import get_run, list_page, read_payload, watch_run
from amends_orchestrator.api.start_run import RunStarter
from amends_orchestrator.api.views import Views
from amends_orchestrator.api.watched_runs import WatchedRuns

SERVICE = "amends.saga.v1.RunService"


def registrar(max_input_bytes: int) -> Callable[[RunServiceServicer, Any], None]:
    """Return a function that adds the service to a server, with a limit in bytes on StartRun requests."""

    def register(api: RunServiceServicer, server: Any) -> None:
        add_RunServiceServicer_to_server(api, cast("grpc.aio.Server", _Bounded(server, max_input_bytes)))

    return register


class _Bounded:
    """A server that refuses a StartRun request for its size before it parses the bytes."""

    def __init__(self, server: Any, most: int) -> None:
        self._server = server
        self._most = most

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Pass on the handlers that find methods by name."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Pass on the handlers of the methods, StartRun's with its limit."""
        start = handlers["StartRun"]
        bounded = start._replace(request_deserializer=self._bounded(start.request_deserializer))
        self._server.add_registered_method_handlers(service, handlers | {"StartRun": bounded})

    def _bounded(self, decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        most = self._most

        def bounded(data: bytes) -> Any:
            if len(data) > most:
                raise InvalidArgument(
                    "INPUT_TOO_LARGE",
                    f"The request has {len(data):,} bytes, at most {most:,} are taken. "
                    "Send a reference to large content.",
                )
            return decode(data)

        return bounded


class RunApi(RunServiceServicer):
    """Serves runs to callers."""

    def __init__(self, views: Views, starter: RunStarter, decisions: RunDecisions, watched: WatchedRuns) -> None:
        self._views = views
        self._starter = starter
        self._decisions = decisions
        self._watched = watched

    async def StartRun(self, request: pb.StartRunRequest, context: Any) -> pb.StartRunResponse:
        """Start a run, or find the one that was started with the same key."""
        check_request(request)
        return await self._starter.start(request)

    async def GetRun(self, request: pb.GetRunRequest, context: Any) -> pb.GetRunResponse:
        """Return one run as its journal says."""
        check_request(request)
        return await get_run(self._views, request)

    async def ListRuns(self, request: pb.ListRunsRequest, context: Any) -> pb.ListRunsResponse:
        """Return a page of runs."""
        check_request(request)
        return await list_page(self._views, request)

    async def WatchRun(self, request: pb.WatchRunRequest, context: Any) -> AsyncIterator[pb.WatchRunResponse]:
        """Stream the timeline of a run."""
        check_request(request)
        async for answer in watch_run(self._views, self._watched, request):
            yield answer

    async def ReadPayload(self, request: pb.ReadPayloadRequest, context: Any) -> AsyncIterator[pb.ReadPayloadResponse]:
        """Stream one payload of a run."""
        check_request(request)
        async for piece in read_payload(self._views, request):
            yield piece

    async def ResolveRun(self, request: pb.ResolveRunRequest, context: Any) -> pb.ResolveRunResponse:
        """Carry out a person's decision about a run."""
        check_request(request)
        return await self._decisions.resolve(request)

    async def CancelRun(self, request: pb.CancelRunRequest, context: Any) -> pb.CancelRunResponse:
        """Ask a run to undo its effects and end."""
        check_request(request)
        return await self._decisions.cancel(request)
