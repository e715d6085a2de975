"""Says over grpc.health.v1 whether this process lives and whether it wants calls.

`liveness` never looks at dependencies, or a database restart would restart every service. `""`, `readiness` and each
service are SERVING while every condition holds. Driven by `service.Runtime`; read by probes and load balancers.
"""

from typing import Any

import structlog
from grpc_health.v1.health import aio
from grpc_health.v1.health_pb2 import HealthCheckResponse

_log = structlog.get_logger(__name__)

LIVENESS = "liveness"
READINESS = "readiness"


class Health:
    """The health of this process, from named conditions."""

    def __init__(self) -> None:
        """Begin alive and not ready: the condition `started` does not hold."""
        self.servicer = aio.HealthServicer()
        self._services = ["", READINESS]
        self._conditions: dict[str, bool] = {"started": False}
        self._published: bool | None = None

    @property
    def ready(self) -> bool:
        """Return whether every condition holds."""
        return all(self._conditions.values())

    async def add(self, service: str) -> None:
        """Answer for one more service, with what holds now."""
        self._services.append(service)
        await self.servicer.set(service, _status(self.ready))

    async def report(self, condition: str, holds: bool) -> None:
        """Note whether a condition holds, and tell everybody who asked when readiness changes."""
        self._conditions[condition] = holds
        await self.publish()

    async def publish(self) -> None:
        """Bring what is served into line with the conditions."""
        ready = self.ready
        if ready == self._published:
            return
        self._published = ready
        await self.servicer.set(LIVENESS, HealthCheckResponse.SERVING)
        for service in self._services:
            await self.servicer.set(service, _status(ready))
        missing = sorted(name for name, holds in self._conditions.items() if not holds)
        _log.info("health.ready" if ready else "health.not_ready", **({} if ready else {"missing": missing}))


def _status(ready: bool) -> Any:
    return HealthCheckResponse.SERVING if ready else HealthCheckResponse.NOT_SERVING
