"""`python -m amends_chassis.ask TARGET [SERVICE]`: asks a service for its health, as `helm test` does.

For people who have the image of a service and no other tool. Exits with 0 when the answer is SERVING.
"""

import asyncio
import sys
from datetime import timedelta
from typing import Any

import grpc.aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from amends_chassis.clients import channel_options
from amends_chassis.dial import dial
from amends_chassis.health import READINESS

PATIENCE = timedelta(seconds=20)


async def ask(target: str, service: str, patience: timedelta = PATIENCE) -> str:
    """Return the name of the status, or that of the gRPC status with which the call failed."""
    async with dial(target, channel_options(target, 64 * 1024)) as channel:
        health: Any = HealthStub(channel)
        request = HealthCheckRequest(service=service)
        try:
            answer = await health.Check(request, timeout=patience.total_seconds(), wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return HealthCheckResponse.ServingStatus.Name(answer.status)


def main() -> int:
    """Ask, print, and return the exit code."""
    if not 2 <= len(sys.argv) <= 3:
        sys.stderr.write("usage: python -m amends_chassis.ask TARGET [SERVICE]\n")
        return 64
    target, service = sys.argv[1], (*sys.argv[2:], READINESS)[0]
    said = asyncio.run(ask(target, service))
    sys.stdout.write(f"{target}: {said}\n")
    return 0 if said == "SERVING" else 1


if __name__ == "__main__":
    sys.exit(main())
