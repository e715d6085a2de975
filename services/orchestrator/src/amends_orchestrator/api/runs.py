"""RunService: one short method for each RPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from amends.saga.v1 import run_service_pb2 as pb
from amends.saga.v1.run_service_pb2_grpc import RunServiceServicer
from amends_orchestrator.api.deciding import Deciding
from amends_orchestrator.api.reading import get_run, list_page, watch_run
from amends_orchestrator.api.start import start_run
from amends_orchestrator.api.views import Views
from amends_orchestrator.runner.fleet import Fleet

SERVICE = "amends.saga.v1.RunService"


class RunApi(RunServiceServicer):
    """Runs, for callers."""

    def __init__(self, fleet: Fleet, views: Views, deciding: Deciding) -> None:
        self._fleet = fleet
        self._views = views
        self._deciding = deciding

    async def StartRun(self, request: pb.StartRunRequest, context: Any) -> pb.StartRunResponse:
        """Starts a run, or finds it."""
        return await start_run(self._fleet, self._views, request)

    async def GetRun(self, request: pb.GetRunRequest, context: Any) -> pb.GetRunResponse:
        """Reads one run."""
        return await get_run(self._views, request)

    async def ListRuns(self, request: pb.ListRunsRequest, context: Any) -> pb.ListRunsResponse:
        """Lists runs."""
        return await list_page(self._views, request)

    async def WatchRun(self, request: pb.WatchRunRequest, context: Any) -> AsyncIterator[pb.WatchRunResponse]:
        """Follows a run."""
        async for answer in watch_run(self._views, self._fleet, request):
            yield answer

    async def ResolveRun(self, request: pb.ResolveRunRequest, context: Any) -> pb.ResolveRunResponse:
        """Takes a person's decision."""
        return await self._deciding.resolve(request)

    async def CancelRun(self, request: pb.CancelRunRequest, context: Any) -> pb.CancelRunResponse:
        """Asks for the end of a run."""
        return await self._deciding.cancel(request)
