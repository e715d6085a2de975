"""What the runs of a process share: the journal, the way to participants, the time, the lease and the tasks of calls.

One object for a process, handed to every live run. Made by the composition root.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol
from uuid import UUID

from amends_saga.journal import secret_for

from amends_orchestrator.announcer import NOBODY_IS_TOLD, Announcer
from amends_orchestrator.calls.metadata import CallMetadata
from amends_orchestrator.calls.ports import Answer
from amends_orchestrator.calls.router import ProtectedRoute, Router
from amends_orchestrator.journal.ids import RunIds
from amends_orchestrator.journal.writer import JournalWriter
from amends_orchestrator.runner.ports import RunInfo


class Caller(Protocol):
    """Makes attempts; `calls.sender.Sender` in production."""

    def send(
        self, protected: ProtectedRoute, request: bytes, metadata: CallMetadata, traceparent: str
    ) -> Awaitable[Answer]:
        """Make one attempt. Raises only CancelledError."""
        ...


class RunHost:
    """The process around the runs."""

    def __init__(
        self,
        writer: JournalWriter,
        router: Router,
        caller: Caller,
        ids: RunIds,
        announcer: Announcer = NOBODY_IS_TOLD,
    ) -> None:
        self.writer = writer
        self.announcer = announcer
        """Makes the events that are committed with records."""
        self.ids = ids
        self.now = ids.now
        """Returns the database's time, as this process estimates it."""
        self.route = router.route
        """Returns how to call a method of a service now, for runs of a namespace. Raises RouteError."""
        self.send = caller.send
        """Makes one attempt. Raises only CancelledError."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._lease_until = 0.0
        self._secret: bytes | None = None

    def hold_secret(self, secret: bytes) -> None:
        """Use the installation's secret for keys from now on."""
        self._secret = secret

    def info(self, run_id: UUID, namespace: str, saga: str, caller_key: str, traceparent: str, rules: int) -> RunInfo:
        """Return the facts about a run that was started under these rules. Raises RuntimeError before `hold_secret`."""
        if self._secret is None:
            raise RuntimeError("the installation's secret has not been read yet")
        return RunInfo(run_id, namespace, saga, caller_key, traceparent, secret_for(rules, self._secret))

    def leased(self) -> bool:
        """Return whether our lease is still valid, so that the runs are still ours."""
        return asyncio.get_running_loop().time() < self._lease_until

    def hold_lease(self, until: float) -> None:
        """Treat the lease as valid until this moment of the loop's clock."""
        self._lease_until = until

    def when_sent(self, work: Callable[..., None], *arguments: Any) -> None:
        """Do some work after the call or row just begun is sent: two turns of the loop from now."""
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, work, *arguments)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a call in a new context, so that it inherits nothing from the code that triggered it.

        It runs to its end even if its run leaves this process.
        """
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """End the calls that are still under way."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
