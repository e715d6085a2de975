"""Starts runs: writes the first record, and returns when it is durable or when another run has the key.

Called by the API (StartRun).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from uuid import UUID

from amends_saga.engine import events as ev
from amends_saga.engine import initial, start
from amends_saga.journal import RULES_VERSION, encode

from amends_orchestrator.journal.batch import StartAnswer
from amends_orchestrator.journal.records import NewRun
from amends_orchestrator.observe import RUNS_STARTED
from amends_orchestrator.runner.fleet import Fleet
from amends_orchestrator.runner.host import RunHost
from amends_orchestrator.runner.live import LiveRun
from amends_orchestrator.runner.ports import PinnedDefinition


@dataclass(frozen=True, slots=True)
class Begun:
    """A durable run: started by this call, or before with the same key."""

    run_id: UUID
    created: bool
    same: bool
    """Whether the run that has the key was started with the same saga and input."""
    live: LiveRun | None


class RunStarts:
    """Starts runs of this process, or finds those that have the same key."""

    def __init__(self, host: RunHost, fleet: Fleet) -> None:
        self._host = host
        self._fleet = fleet
        self._starting: dict[tuple[str, str], asyncio.Future[Begun]] = {}
        """The last start for each namespace and key that the journal has not answered yet."""

    async def begin(
        self,
        definition: PinnedDefinition,
        digest: bytes,
        *,
        namespace: str,
        key: str,
        data: bytes,
        traceparent: str,
        within: timedelta | None = None,
    ) -> Begun:
        """Start a run, or find the one that has the key; return when it is durable. `data` is the input.

        `within` is how long the caller waits. After that the start is not sent to the database any more, so that no run
        begins whose caller has given up. Raises TimeoutError then, and the asyncpg error with which the database
        refuses a row.
        """
        plan, now = definition.plan, self._host.now()
        info = self._host.info(self._host.ids.next(), namespace, plan.saga, key, traceparent, RULES_VERSION)
        run = LiveRun(self._host, self._fleet, definition, info, initial(plan, info.name))
        deadline = now + plan.deadline if plan.deadline is not None else None
        state, commands = start(plan, run.state, ev.Started(data, deadline), now)
        first = commands[0]
        assert isinstance(first, ev.Record)
        here = self._fleet.spare_runs > 0
        new = NewRun(
            info.id,
            namespace,
            plan.saga,
            key,
            payload_of(plan.saga, data),
            digest,
            RULES_VERSION,
            self._fleet.process if here else None,
            traceparent,
            encode(plan, first.entry),
        )
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Begun] = loop.create_future()
        if here:
            run.state = state
            self._fleet.keep(run)
        until = loop.time() + within.total_seconds() if within is not None else None
        self._starting[namespace, key] = answer
        told = self._host.announcer.started(info, digest)
        self._host.writer.start(new, lambda what: self._written(run, what, answer, new, here=here), until, told)
        if here:
            self._fleet.soon(run.resume, commands[1:])
        return await answer

    async def started(self, namespace: str, key: str) -> None:
        """Return when no start with this key is under way in this process."""
        while (answer := self._starting.get((namespace, key))) is not None:
            await asyncio.wait([answer])

    def _written(
        self, run: LiveRun, what: StartAnswer | Exception, answer: asyncio.Future[Begun], new: NewRun, *, here: bool
    ) -> None:
        """Hear from the journal what became of a start: its run, the one that has the key, or an error."""
        if self._starting.get((new.namespace, new.key)) is answer:
            del self._starting[new.namespace, new.key]
        if self._fleet.get(new.id) is run and (isinstance(what, Exception) or not what.created):
            run.leave()
            self._fleet.forget(new.id)
        if isinstance(what, Exception):
            if not answer.done():
                answer.set_exception(what)
            return
        live = run if here and what.created else self._fleet.get(what.run_id)
        if what.created:
            RUNS_STARTED.labels(namespace=new.namespace, saga=new.saga).inc()
            if here:
                run.tell(ev.Durable(1))
            else:
                self._fleet.capacity_changed.set()
        self._fleet.soon(_resolve, answer, Begun(what.run_id, what.created, what.payload == new.payload, live))


def payload_of(saga: str, data: bytes) -> bytes:
    """Return what is compared when a key is used again: sha256 of the saga's name and the serialised input."""
    return sha256(saga.encode() + b"\0" + data).digest()


def _resolve(answer: asyncio.Future[Begun], begun: Begun) -> None:
    if not answer.done():
        answer.set_result(begun)
