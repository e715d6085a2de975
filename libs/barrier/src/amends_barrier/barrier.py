"""The barrier of one process: what a service makes at its start and hands to its gRPC server.

Called by the chassis, and by any Python gRPC service that has asyncpg and no chassis.
"""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Self

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from amends_barrier import rows
from amends_barrier.guard import Guard
from amends_barrier.interceptor import Interceptor
from amends_barrier.methods import Guarded, guarded_methods
from amends_barrier.transaction import Pool

FINISH = timedelta(seconds=10)


class Barrier:
    """Keeps the five promises for the guarded methods of a process."""

    def __init__(self, pool: Pool, methods: Mapping[str, Guarded], *, finish: timedelta = FINISH) -> None:
        """Guard `methods`, by path ("/package.Service/Method"), in the database of `pool`, where `schema` was applied.

        `finish` bounds how long a transaction that has begun may go on after its caller's deadline.
        """
        self.methods = dict(methods)
        self._guard = Guard(pool)
        self._interceptor = Interceptor(self._guard, self.methods, finish)

    @classmethod
    def from_descriptors(
        cls, pool: Pool, descriptors: FileDescriptorSet, services: Iterable[str], *, finish: timedelta = FINISH
    ) -> Self:
        """Guard the methods of `services` (full names) whose option amends.options.v1.method says so.

        Raises ValueError for an unknown service and for options that contradict each other.
        """
        return cls(pool, guarded_methods(descriptors, services), finish=finish)

    def interceptor(self) -> grpc.aio.ServerInterceptor:
        """Return the interceptor, the same each time; it goes innermost, inside the interceptor that maps errors."""
        return self._interceptor

    async def drain(self) -> None:
        """Wait for transactions whose callers have left. Call it between stopping the server and closing the pool."""
        await self._interceptor.drain()

    async def expire(self, retention: timedelta, limit: int = 1_000) -> int:
        """Forget at most `limit` keys of which everything is older than `retention`; return how many rows that were.

        Call it again until it returns 0. Retention is a promise to callers (`barrierRetention` of the Participant), not
        housekeeping: a key that is forgotten while its run lives can have its effect a second time.
        Raises BarrierError when the database is not available.
        """
        async with self._guard.transaction() as own:
            return await own.expire(retention, limit)

    @staticmethod
    def schema() -> str:
        """Return the SQL that makes the table `barrier`, for the service's own migrations; harmless to run again."""
        return rows.SCHEMA
