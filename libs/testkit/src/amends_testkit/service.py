"""The parts that tests of a service on the chassis share: its database, a saga's call, and how a refusal is read."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import ModuleType
from typing import Any

import grpc.aio
from amends_chassis.database import Database
from amends_chassis.domain import IdentifierInvalidError, RefusedError
from amends_chassis.migrations import migrate
from amends_chassis.pages import PageInvalidError
from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]
from grpc_status import rpc_status

from amends_testkit.waiting import eventually

SentMetadata = Sequence[tuple[str, str]]


@asynccontextmanager
async def migrated(url: str, package: str) -> AsyncIterator[Database]:
    """Open the database at `url` for a block, with the migrations of a package ("shop_orders.migrations") applied."""
    database = Database(url)
    await database.connect()
    try:
        await migrate(database, package)
        yield database
    finally:
        await database.close()


async def empty(database: Database) -> None:
    """Delete every row of a migrated database, so that tests of one service can share it: making one takes longer."""
    rows = await database.pool.fetch(
        "SELECT quote_ident(tablename) AS name FROM pg_tables"
        " WHERE schemaname = 'public' AND tablename <> 'schema_migrations'"
    )
    await database.pool.execute(f"TRUNCATE {', '.join(row['name'] for row in rows)} RESTART IDENTITY CASCADE")


def saga_call(key: str, operation: str = "action", outcome: str | None = None) -> SentMetadata:
    """Return the metadata of a saga's call; `outcome` is that of a compensation's action, `ok` or `unknown`."""
    metadata = [("amends-idempotency-key", key), ("amends-operation", operation)]
    return metadata if outcome is None else [*metadata, ("amends-action-outcome", outcome)]


def refusal_of(error: BaseException) -> tuple[str, str]:
    """Return code and reason of a failed call; an empty reason when it gives none."""
    assert isinstance(error, grpc.aio.AioRpcError)
    status: Any = rpc_status.from_call(error)  # type: ignore[arg-type]
    info = ErrorInfo()
    if status is not None and status.details:
        status.details[0].Unpack(info)
    return error.code().name, str(info.reason)


def refusals_of(domain: ModuleType, *, pages: bool = False) -> set[type[RefusedError]]:
    """Return every refusal that the rules of a domain raise, those of the chassis too; with `pages`, for lists."""
    own = {one for one in RefusedError.__subclasses__() if one.__module__ == domain.__name__}
    return own | {IdentifierInvalidError} | ({PageInvalidError} if pages else set())


async def one_behind_the_other(
    database: Database, first: Callable[[Any], Awaitable[Any]], second: Callable[[Any], Awaitable[Any]]
) -> Any:
    """Do two changes, each in a transaction (its argument), the second while the first is not yet committed.

    The first commits once the second waits for its lock. Return what the second returns; raises what it raises.
    """

    async with AsyncExitStack() as stack:
        # Beside the pool: whoever holds a connection of it must not wait for another one.
        one, other, watcher = [await database.open_connection() for _ in range(3)]
        for connection in (one, other, watcher):
            stack.push_async_callback(connection.close)

        async def follow() -> Any:
            async with other.transaction():
                return await second(other)

        async def waits() -> bool:
            query = "SELECT cardinality(pg_blocking_pids($1)) > 0"
            return bool(await watcher.fetchval(query, other.get_server_pid()))

        async with one.transaction():
            await first(one)
            following = asyncio.create_task(follow())
            await eventually(waits, what="the second change waits for the first")
        return await following
