"""The monitor as the reconciler of Choreographies sees it: its answers, or one of two errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amends_chassis.clients import Channel

from amends.monitor.v1 import monitor_service_pb2 as pb
from amends.monitor.v1.monitor_service_pb2_grpc import MonitorServiceStub
from amends.saga.v1.definition_service_pb2 import Manifest
from amends_operator.orchestrator import CALL, answer_of

if TYPE_CHECKING:
    from amends_chassis.certificates import Certificates


class MonitorClient:
    """Calls to the monitor, over one channel."""

    def __init__(self, target: str, certificates: Certificates | None = None) -> None:
        """Open the channel. Without `certificates` it is plain text."""
        self._channel = Channel(target, call_timeout=CALL, certificates=certificates)
        self._monitor = MonitorServiceStub(self._channel)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def apply(self, manifest: Manifest, namespace: str) -> pb.ApplyChoreographyResponse:
        """Have a Choreography watched. Raises AwayError, OrchestratorRefusedError."""
        request = pb.ApplyChoreographyRequest(manifest=manifest, namespace=namespace)
        return await answer_of(self._monitor.ApplyChoreography(request))

    async def choreographies(self, namespace: str = "", name: str = "") -> list[pb.ChoreographyInfo]:
        """Return the Choreographies that are watched, with how many flows are where. Raises AwayError."""
        request = pb.ListChoreographiesRequest(namespace=namespace, name=name)
        return list((await answer_of(self._monitor.ListChoreographies(request))).choreographies)

    async def delete(self, namespace: str, name: str) -> None:
        """Have a Choreography watched no more. Raises AwayError."""
        await answer_of(self._monitor.DeleteChoreography(pb.DeleteChoreographyRequest(namespace=namespace, name=name)))
