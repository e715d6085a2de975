"""The network between an orchestrator and its participants: calls and answers are late, lost or repeated.

It stands where the orchestrator's channels do, so that the real call path runs over it. A call that has left arrives
whatever becomes of its caller. Called by the simulation.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from random import Random
from typing import Any

import grpc
import grpc.aio
from amends_orchestrator.calls.channels import Channels
from amends_orchestrator.calls.ports import Invoke
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from amends_simulation.participants import Said, SimulatedParticipants
from amends_simulation.virtual import seconds

CallGate = Callable[[], Awaitable[None]]
TraceLine = Callable[[str], None]
CODES = {code.value[0]: code for code in grpc.StatusCode}
DETAILS = "grpc-status-details-bin"
LONGEST = 8.0
"""Seconds after which a call that is late has arrived, or never will."""


@dataclass
class Weather:
    """The faults of the network, as shares of all calls."""

    lost: float = 0.0
    late: float = 0.0
    twice: float = 0.0
    unheard: float = 0.0
    """The call arrives, its answer does not."""

    def calm(self) -> None:
        """From now on every call arrives once and is answered."""
        self.lost = self.late = self.twice = self.unheard = 0.0


class SimulatedChannels(Channels):
    """The channels of one process."""

    def __init__(
        self, participants: SimulatedParticipants, weather: Weather, chance: Random, gate: CallGate, tell: TraceLine
    ) -> None:
        self.max_message_bytes = 4 * 1024 * 1024
        self.participants = participants
        self.weather = weather
        self.chance = chance
        self.gate = gate
        self.tell = tell
        self.in_flight: Counter[str] = Counter()
        self.most_in_flight = 0

    def invoke(self, target: str, path: str) -> Invoke:
        """Return what makes calls of a method."""
        return lambda request, timeout, metadata: _Call(self, path, request, timeout, dict(metadata))

    async def send(self, path: str, request: bytes, timeout: float, said: dict[str, str]) -> Said:
        """Make one call. Raises AioRpcError."""
        await self.gate()
        service = path.split("/")[1]
        self.in_flight[service] += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight[service])
        try:
            async with asyncio.timeout(timeout):
                answer = await self._carried(path, request, said)
        except TimeoutError:
            answer = Said(grpc.StatusCode.DEADLINE_EXCEEDED.value[0])
        finally:
            self.in_flight[service] -= 1
        await self.gate()
        if answer.code:
            raise _error(answer)
        return answer

    def _carried(self, path: str, request: bytes, said: dict[str, str]) -> "asyncio.Future[Said]":
        """Return the answer, which may never come."""
        weather, chance = self.weather, self.chance
        answer: asyncio.Future[Said] = asyncio.get_running_loop().create_future()
        plain = self.participants.kind(path, said["amends-step"]).plain
        delay = chance.uniform(0.5, LONGEST) if chance.random() < weather.late else chance.uniform(0.001, 0.02)
        lost, unheard = chance.random() < weather.lost, chance.random() < weather.unheard
        twice = chance.random() < weather.twice and not plain

        def deliver(*, again: bool) -> None:
            found = self.participants.handle(path, request, said)
            name = f"{said['amends-run-id'][:8]} {said['amends-operation']} of {said['amends-step']}"
            self.tell(f"{name} by owner {said['amends-fence']}{' again' if again else ''}: {found.code} {found.reason}")
            if not answer.done() and not unheard and not again:
                answer.set_result(found)

        loop = asyncio.get_running_loop()
        if not lost:
            loop.call_later(delay, lambda: deliver(again=False))
        if twice:
            loop.call_later(chance.uniform(0.001, LONGEST), lambda: deliver(again=True))
        return answer


class _Call:
    """A call under way, as grpc.aio would return it."""

    def __init__(
        self, wire: SimulatedChannels, path: str, request: bytes, timeout: float, said: dict[str, str]
    ) -> None:
        self._work = wire.send(path, request, timeout, said)
        self._trailers: tuple[tuple[str, str], ...] = ()

    def __await__(self) -> Generator[Any, None, bytes]:
        answer = yield from self._work.__await__()
        self._trailers = answer.trailers
        return answer.response

    async def trailing_metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the trailers of the answer."""
        return self._trailers


def _error(answer: Said) -> grpc.aio.AioRpcError:
    trailing: list[tuple[str, str | bytes]] = list(answer.trailers)
    if answer.reason:
        detail = AnyMessage()
        detail.Pack(ErrorInfo(reason=answer.reason, domain="amends.dev"))
        trailing.append((DETAILS, Status(code=answer.code, details=[detail]).SerializeToString()))
    return grpc.aio.AioRpcError(
        CODES[answer.code], grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), f"at {seconds():.3f} s"
    )
