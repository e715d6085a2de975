"""An orchestrator in this process, for runs over contracts of others."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc.aio
from amends_chassis.service import Runtime, running
from amends_orchestrator.assemble import Orchestrator
from amends_orchestrator.calls.targets import TargetScope
from amends_orchestrator.settings import Settings
from pydantic import SecretStr

from amends.saga.v1 import definition_service_pb2 as dpb
from amends.saga.v1.definition_service_pb2_grpc import DefinitionServiceStub
from amends.saga.v1.run_service_pb2_grpc import RunServiceStub


@dataclass(frozen=True, slots=True)
class Api:
    """What a running orchestrator is asked through."""

    runs: Any
    """Its RunService."""
    definitions: Any
    """Its DefinitionService."""

    async def apply(self, participants: Sequence[str], sagas: Sequence[str]) -> None:
        """Apply manifests; each of them has to be accepted, and each contract to be read."""
        for text in participants:
            request = dpb.ApplyParticipantRequest(manifest=dpb.Manifest(text=text))
            applied = await self.definitions.ApplyParticipant(request)
            assert applied.participant.ready, applied
        for text in sagas:
            accepted = await self.definitions.ApplySaga(dpb.ApplySagaRequest(manifest=dpb.Manifest(text=text)))
            assert accepted.accepted, accepted.findings


@asynccontextmanager
async def orchestrator(url: str) -> AsyncIterator[Api]:
    """Run one replica for a block."""

    async def assemble(runtime: Runtime) -> None:
        assert isinstance(runtime.settings, Settings)
        await Orchestrator(runtime, runtime.settings).start()

    settings = Settings(
        database_url=SecretStr(url),
        targets=TargetScope.LOOPBACK,
        poll=timedelta(milliseconds=50),
        drain=timedelta(seconds=2),
    )
    async with running(settings, assemble) as runtime, grpc.aio.insecure_channel(runtime.address) as channel:
        yield Api(RunServiceStub(channel), DefinitionServiceStub(channel))
