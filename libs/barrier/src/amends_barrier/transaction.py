"""The transaction that a guarded handler works in: opened and finished by the barrier, lent to the handler.

Called by the guard. `connection` and `savepoint` are for handlers.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import timedelta
from itertools import count
from types import TracebackType
from typing import Any, Self, TypeAlias, cast

import asyncpg

from amends_barrier import rows
from amends_barrier.postgres import BROKEN, conflict, database_away, session_over
from amends_barrier.protocol import BarrierError, Operation, Reason

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"

INSERTED = "INSERT 0 1"
ACQUIRE_TIMEOUT = timedelta(seconds=5)
ROLLBACK_TIMEOUT = timedelta(seconds=5)

DROPPED = "barrier.connection_dropped"
_log = logging.getLogger(__name__)

_lent: ContextVar[Connection] = ContextVar("amends_barrier_connection")
_savepoints = count(1)


def connection() -> Connection:
    """Return the connection of the barrier's transaction. Raises LookupError outside a guarded handler.

    The barrier has begun the transaction and ends it. For a part that may fail on its own use `savepoint`; asyncpg's
    own `connection.transaction()` refuses to work inside.
    """
    return _lent.get()


@asynccontextmanager
async def savepoint(own: Any = None) -> AsyncIterator[Connection]:
    """Undo just the block when it raises, and go on in the transaction.

    That is the one of `connection`, or of `own`, for handlers of events. Raises LookupError like `connection`.
    """
    lent = _lent.get() if own is None else own
    name = f"amends_{next(_savepoints)}"
    await lent.execute(f"SAVEPOINT {name}")
    try:
        yield lent
    except BaseException:
        await lent.execute(f"ROLLBACK TO SAVEPOINT {name}")
        raise
    await lent.execute(f"RELEASE SAVEPOINT {name}")


def refusal_for(error: Exception) -> BarrierError | None:
    """Return the refusal that asks for another try, if that can help; None for an error that is the handler's own."""
    if conflict(error):
        return BarrierError(Reason.TRANSACTION_CONFLICT)
    return BarrierError(Reason.DATABASE_UNAVAILABLE) if database_away(error) else None


class Transaction:
    """A connection of the pool for a block, on which transactions are opened and ended by script.

    What is still open at the block's end is rolled back. Instead of its error the block raises
    BarrierError(DATABASE_UNAVAILABLE) when there is no connection in time, when it was lost, and when the server gave
    up; BarrierError(TRANSACTION_CONFLICT) for a serialisation failure or a deadlock. A session of a server that is
    read-only by now, or shuts down, does not go back to the pool, and the pool's other sessions are replaced before
    their next use.
    """

    __slots__ = ("_held", "_open", "_pool", "_prepared", "_token")

    def __init__(self, pool: Pool, prepared: "PreparedScripts") -> None:
        self._pool = pool
        self._prepared = prepared
        self._open = False

    async def __aenter__(self) -> Self:
        try:
            self._held = cast("Connection", await self._pool.acquire(timeout=ACQUIRE_TIMEOUT.total_seconds()))
        except (TimeoutError, *BROKEN) as error:
            raise BarrierError(Reason.DATABASE_UNAVAILABLE) from error
        self._token = _lent.set(self._held)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _lent.reset(self._token)
        refusal = self._refusal_for(error)
        try:
            if session_over(error):
                await self._give_up()
            elif self._open:
                await self._rollback()
        finally:
            await self._give_back()
        if refusal is not None:
            raise refusal from error

    def _refusal_for(self, error: BaseException | None) -> BarrierError | None:
        """Return the refusal that asks for another try if that can help; None for an error that is the handler's."""
        if not isinstance(error, Exception) or isinstance(error, BarrierError):
            return None
        if self.lost:
            return BarrierError(Reason.DATABASE_UNAVAILABLE)
        return refusal_for(error)

    @property
    def lost(self) -> bool:
        """Return whether the connection is gone; the server has rolled back, unless it was just about to commit."""
        try:
            return self._held.is_closed()
        except asyncpg.InterfaceError:  # the pool has dropped it already
            return True

    async def begin(self) -> None:
        """Open a transaction without a row."""
        self._open = True
        await self._held.execute("BEGIN")

    async def begin_with(self, script: str) -> bool:
        """Run a script that starts with BEGIN; tell whether the INSERT at its end inserted."""
        self._open = True
        return await self.insert(script)

    async def insert(self, script: str) -> bool:
        """Run a script of prepared statements that ends with an INSERT; tell whether it inserted."""
        backend = self._held.get_server_pid()
        if backend not in self._prepared.backends:
            await self._prepare(backend)
        try:
            return await self._held.execute(script) == INSERTED
        except asyncpg.InvalidSQLStatementNameError:
            # Another session behind the same number (a new server process), or one that was reset.
            await self._held.execute("ROLLBACK")
            await self._prepare(backend)
            return await self._held.execute(script) == INSERTED

    async def _prepare(self, backend: int) -> None:
        for statement in self._prepared.scripts.prepare:
            try:
                await self._held.execute(statement)
            except asyncpg.DuplicatePreparedStatementError:
                continue  # an earlier call was cut off in the middle of this
        self._prepared.backends.add(backend)

    async def record_null_compensation(self, key: str, digest: bytes) -> bool:
        """Record that there was nothing to undo; return False if another call was faster."""
        return await self._held.execute(rows.NULL_COMPENSATION, key, digest) == INSERTED

    async def commit(self, script: str = "COMMIT") -> None:
        """Run a script that ends with COMMIT. Raises RuntimeError when there is no transaction that could be."""
        if not self._held.is_in_transaction():
            raise RuntimeError("the handler has ended the barrier's transaction")
        tag = await self._held.execute(script)
        if tag != "COMMIT":
            raise RuntimeError("the handler went on after an error that had broken the transaction")
        self._open = False

    async def _give_up(self) -> None:
        """End a session that can only fail again; its siblings in the pool are as old, so they are replaced too."""
        self._open = False
        if not self.lost:
            self._held.terminate()
        await self._pool.expire_connections()

    async def _rollback(self) -> None:
        """Undo what is open; a connection that cannot do even that is given up, and the server undoes it."""
        self._open = False
        if self.lost:
            return
        try:
            async with asyncio.timeout(ROLLBACK_TIMEOUT.total_seconds()):
                await self._held.execute("ROLLBACK")
        except (TimeoutError, *BROKEN):
            if not self.lost:
                self._held.terminate()

    async def _give_back(self) -> None:
        """Give the connection back. One that ends meanwhile changes nothing of what was committed or refused."""
        try:
            await self._pool.release(cast("Any", self._held))
        except BROKEN as error:  # the pool has dropped it
            _log.info(DROPPED, extra={"error": type(error).__name__})

    async def read(self, key: str) -> "dict[Operation, BarrierRow]":
        """Return what is recorded under a key."""
        found = await self._held.fetch(rows.READ, key)
        return {Operation(row["operation"]): BarrierRow(row["request_digest"], row["response"]) for row in found}

    async def expire(self, retention: timedelta, limit: int) -> int:
        """Remove at most `limit` keys that are older than `retention`; return how many rows that were."""
        tag = await self._held.execute(rows.EXPIRE, retention, limit)
        return int(tag.rpartition(" ")[2])


class PreparedScripts:
    """The scripts of one barrier, and the server processes that have its statements prepared."""

    __slots__ = ("backends", "scripts")

    def __init__(self) -> None:
        self.scripts = rows.Scripts(secrets.token_hex(4))
        self.backends: set[int] = set()


class BarrierRow:
    """The record of one operation in the barrier's table."""

    __slots__ = ("digest", "response")

    def __init__(self, digest: bytes | None, response: bytes | None) -> None:
        self.digest = digest
        self.response = response

    @property
    def is_void(self) -> bool:
        """Return whether the operation never ran and never will."""
        return self.digest is None

    def stored(self) -> bytes:
        """Return the response. Raises RuntimeError if there is none: only a handler that committed can cause that."""
        if self.response is None:
            raise RuntimeError("a handler has committed the barrier's transaction before its response was stored")
        return self.response
