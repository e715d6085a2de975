"""A pool of Postgres connections that gives a task one at a time.

A task that holds a connection and waits for another one waits, as soon as enough others do the same, for ever: every
connection is held by somebody who waits. That shows under load only, so it is refused always. Made by `database`.
"""

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    Base = asyncpg.Pool[asyncpg.Record]
else:
    Base = asyncpg.Pool

_IDLE = timedelta(minutes=5)


class SecondConnectionError(RuntimeError):
    """A task that holds a connection of a pool asks it for another one: a mistake in the code."""


class OneEach(Base):
    """The pool. Code that needs two connections at once takes one and opens the other beside the pool."""

    def __init__(self, *, size: int, **settings: Any) -> None:
        """Take the largest number of connections, and what asyncpg.create_pool takes."""
        super().__init__(
            min_size=1,
            max_size=size,
            max_queries=50_000,
            max_inactive_connection_lifetime=_IDLE.total_seconds(),
            loop=None,
            connection_class=asyncpg.Connection,
            record_class=asyncpg.Record,
            **settings,
        )
        self._tasks: dict[Any, asyncio.Task[Any] | None] = {}
        """Who holds which connection."""

    async def _acquire(self, timeout: float | None) -> Any:
        task = asyncio.current_task()
        if task is not None and task in self._tasks.values():
            raise SecondConnectionError("a task that holds a connection of this pool must not wait for another one")
        connection = await super()._acquire(timeout)  # type: ignore[misc]  # the stubs do not show it
        self._tasks[connection] = task
        return connection

    async def release(self, connection: Any, *, timeout: float | None = None) -> None:
        """Take a connection back, from any task."""
        self._tasks.pop(connection, None)
        try:
            await super().release(connection, timeout=timeout)
        except asyncpg.InternalClientError:
            # asyncpg looks whether the connection is still lent, and takes it back one turn of the loop later. A
            # session that ends in between was taken back already.
            if connection._con is not None:
                raise
