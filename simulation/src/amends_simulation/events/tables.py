"""A Postgres of rows, locks and transactions in memory, as the relay and the consumers of events use it.

Whoever reads sees what is committed and what it has written itself; whoever writes holds the row until its transaction
ends, and others wait. A session ends when it stood idle for too long, and its transaction with it. Statements are in
`statements`. Called by `world`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any, TypeAlias

import asyncpg

RowKey: TypeAlias = tuple[Any, ...]
EventRow: TypeAlias = dict[str, Any]
RowPlace: TypeAlias = tuple[str, RowKey]
EventGate: TypeAlias = Callable[[], Awaitable[None]]

IDLE_IN_TRANSACTION = timedelta(seconds=5)
"""Unless the transaction says something else."""
DEADLOCK_TIMEOUT = timedelta(seconds=1)


@dataclass
class EventTables:
    """The committed rows, who holds which of them, and what has gone wrong with the database."""

    chance: Random
    statements: dict[str, Callable[..., Awaitable[list[EventRow]]]]
    rows: dict[str, dict[RowKey, EventRow]] = field(default_factory=dict)
    held: dict[RowPlace, "SimulatedSession"] = field(default_factory=dict)
    """Which session holds a row, or an advisory lock."""
    numbers: dict[str, int] = field(default_factory=dict)
    """Sequences: they go on when a transaction is rolled back."""
    told: list[EventRow] = field(default_factory=list)
    """Every row of the outbox that was ever committed, in the order of the commits."""
    effects: list[EventRow] = field(default_factory=list)
    """Every effect, in the order of the commits."""
    lost: float = 0.0
    """How often a connection breaks: before a statement arrives, or after it has worked."""
    slow: float = 0.0
    """How often a statement takes seconds."""
    away: bool = False

    def table(self, name: str) -> dict[RowKey, EventRow]:
        """Return the committed rows of a table by their keys."""
        return self.rows.setdefault(name, {})

    def next(self, sequence: str) -> int:
        """Return the next number of a sequence."""
        self.numbers[sequence] = self.numbers.get(sequence, 0) + 1
        return self.numbers[sequence]

    def commit(self, changes: dict[RowPlace, EventRow | None]) -> None:
        """Make the changes of a transaction visible to everybody."""
        for (name, key), row in changes.items():
            table = self.table(name)
            if row is None:
                table.pop(key, None)
                continue
            if name == "outbox":
                self.told.append(row)
            elif name == "effect":
                self.effects.append(row)
            table[key] = row


class SimulatedSession:
    """One session of the server, behind what asyncpg's connection would be to relay and consumer."""

    def __init__(self, tables: EventTables, gate: EventGate) -> None:
        self.tables = tables
        self._gate = gate
        self._changes: dict[RowPlace, EventRow | None] = {}
        self._open = self._failed = self._over = self._closed = False
        self._ended = asyncio.Event()
        self._locks: list[RowPlace] = []
        self._advisory: list[RowPlace] = []
        self._awaited: RowPlace | None = None
        self._idle: timedelta | None = None
        self._idle_in_transaction = IDLE_IN_TRANSACTION
        self._timer: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------ what the client calls

    def is_closed(self) -> bool:
        """Return whether the client knows that the connection is gone."""
        return self._closed

    def terminate(self) -> None:
        """Close the connection; the server ends the session."""
        self._closed = True
        self.end()

    async def fetch(self, sql: str, *values: Any) -> list[EventRow]:
        """Execute a statement and return its rows."""
        rows: list[EventRow] = await self._sent(sql, lambda: self._execute(sql, values))
        return rows

    async def fetchrow(self, sql: str, *values: Any) -> EventRow | None:
        """Return the first row, or None."""
        rows = await self.fetch(sql, *values)
        return rows[0] if rows else None

    async def fetchval(self, sql: str, *values: Any) -> Any:
        """Return the first value of the first row, or None."""
        row = await self.fetchrow(sql, *values)
        return next(iter(row.values())) if row else None

    async def executemany(self, sql: str, rows: list[RowKey]) -> None:
        """Execute a statement for each row."""
        for values in rows:
            await self.fetch(sql, *values)

    async def execute(self, sql: str, *values: Any) -> str:
        """Execute a statement, or begin or end a transaction; return the tag of COMMIT, and of nothing else."""
        if sql.startswith("BEGIN"):
            await self._sent(sql, lambda: self._begin(int(sql.rpartition("=")[2])))
        elif sql.startswith("SET idle_session_timeout"):
            self._idle = timedelta(milliseconds=int(sql.rpartition("=")[2]))
        elif sql == "COMMIT":
            return str(await self._sent(sql, self._commit))
        elif sql == "ROLLBACK":
            await self._sent(sql, self._rollback)
        else:
            await self.fetch(sql, *values)
        return ""

    async def _sent(self, sql: str, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do what a statement does at one moment between now and its answer, unless something goes wrong."""
        await self._gate()
        tables, chance = self.tables, self.tables.chance
        if self._closed or self._over:
            self._closed = True
            raise asyncpg.InterfaceError("connection is closed")
        took = chance.uniform(1, 4) if chance.random() < tables.slow else chance.uniform(0.001, 0.02)
        at_once = chance.random() < 0.5  # then its answer takes the time, else it does itself
        if not at_once:
            await asyncio.sleep(took)
        broken = tables.away or chance.random() < tables.lost
        answer = None
        if not self._over and (not broken or (chance.random() < 0.5 and not tables.away)):
            if self._timer is not None:
                self._timer.cancel()
            answer = await work()
            self._wait()
        if at_once:
            await asyncio.sleep(took)
        if broken or self._over:
            self.terminate()
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        await self._gate()
        return answer

    # ------------------------------------------------------------ what the server does

    def end(self) -> None:
        """End the session: its transaction is rolled back and its locks are free."""
        if not self._over:
            self._over = True
            self._free()
            for place in self._advisory:
                self.tables.held.pop(place, None)

    def _wait(self) -> None:
        """Begin to wait for the next statement, not for ever."""
        bound = self._idle_in_transaction if self._open else self._idle
        if bound is not None:
            self._timer = asyncio.get_running_loop().call_later(bound.total_seconds(), self.end)

    async def _begin(self, milliseconds: int) -> None:
        self._open, self._failed = True, False
        self._idle_in_transaction = timedelta(milliseconds=milliseconds)

    async def _commit(self) -> str:
        failed = self._failed
        if not failed:
            self.tables.commit(self._changes)
        self._free()
        return "ROLLBACK" if failed else "COMMIT"

    async def _rollback(self) -> None:
        self._free()

    def _free(self) -> None:
        self._changes = {}
        self._open = self._failed = False
        for place in self._locks:
            if self.tables.held.get(place) is self:
                del self.tables.held[place]
        self._locks = []
        self._ended.set()
        self._ended = asyncio.Event()

    async def _execute(self, sql: str, values: tuple[Any, ...]) -> list[EventRow]:
        if self._failed:
            raise asyncpg.InFailedSQLTransactionError("current transaction is aborted")
        statement = self.tables.statements.get(sql)
        if statement is None:
            raise LookupError(f"the simulation does not know this statement: {sql[:80]}")
        try:
            found = await statement(self, *values)
        except asyncpg.PostgresError:
            self._failed = self._open
            if not self._open:
                self._free()
            raise
        if not self._open:
            await self._commit()
        return found

    # ------------------------------------------------------------ what statements do

    def get(self, table: str, key: RowKey) -> EventRow | None:
        """Return a row as this session sees it."""
        if (table, key) in self._changes:
            return self._changes[table, key]
        return self.tables.table(table).get(key)

    def all(self, table: str) -> Iterator[tuple[RowKey, EventRow]]:
        """Return all rows of a table as this session sees them, in the order in which they were made."""
        committed = self.tables.table(table)
        yield from ((key, row) for key in list(committed) if (row := self.get(table, key)) is not None)
        mine = [key for name, key in self._changes if name == table and key not in committed]
        yield from ((key, row) for key in mine if (row := self.get(table, key)) is not None)

    def put(self, table: str, key: RowKey, row: EventRow | None) -> None:
        """Write a row, or delete it with None; it is held already, or new."""
        self._changes[table, key] = row

    def free(self, table: str, key: RowKey) -> bool:
        """Return whether nobody else holds a row."""
        return self.tables.held.get((table, key), self) is self

    async def lock(self, table: str, key: RowKey) -> EventRow | None:
        """Hold a row until the transaction ends, when nobody else does any more; return it as it is then.

        Raises DeadlockDetectedError after a while when those who hold it wait for this session.
        """
        place = (table, key)
        while not self.free(table, key):
            self._awaited = place
            try:
                async with asyncio.timeout(DEADLOCK_TIMEOUT.total_seconds()):
                    await self.tables.held[place]._ended.wait()
            except TimeoutError:
                self._look_for_deadlock()
            finally:
                self._awaited = None
        if self._over:
            raise asyncpg.ConnectionDoesNotExistError("the session is over")
        self.tables.held[place] = self
        self._locks.append(place)
        return self.get(table, key)

    def _look_for_deadlock(self) -> None:
        session: SimulatedSession | None = self
        for _ in range(len(self.tables.held) + 1):
            session = self.tables.held.get(session._awaited) if session and session._awaited else None
            if session is self:
                raise asyncpg.DeadlockDetectedError("deadlock detected")

    def try_advisory(self, key: RowKey) -> bool:
        """Take a lock that the session keeps; return whether it has it."""
        place = ("advisory", key)
        if self.tables.held.setdefault(place, self) is not self:
            return False
        self._advisory.append(place)
        return True


class SimulatedEventPool:
    """The pool of one process: a session for each who asks."""

    def __init__(self, connect: Callable[[], Awaitable[SimulatedSession]]) -> None:
        self._connect = connect

    @asynccontextmanager
    async def acquire(self, timeout: float) -> AsyncIterator[SimulatedSession]:
        """Give a session, which ends with the block."""
        async with asyncio.timeout(timeout):
            session = await self._connect()
        try:
            yield session
        finally:
            session.terminate()
