"""Serves people's requests about open runs: cancel, try now what waits, and park for a stalled one.

The owner of a run answers: at once if it is this process, through the database if it is another. A request is granted
when it is durable, not when it was heard. Called by the API and by the claimer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import structlog
from amends_chassis.database import Executes
from amends_saga.engine import Phase, cancellable, stalled_since
from amends_saga.engine import events as ev

from amends_orchestrator.journal import requests
from amends_orchestrator.journal.connection import Connect
from amends_orchestrator.journal.requests import RequestKind, RequestReply, RunRequest
from amends_orchestrator.runner.fleet import Fleet
from amends_orchestrator.runner.live import LiveRun

LISTEN_FAILED = "requests.listen_failed"
TRIED_NOW = "run.tried_now"
GRANTED = RequestReply(True)
ANSWER_WITHIN = timedelta(seconds=10)
POLL = timedelta(seconds=5)
LOOK = timedelta(milliseconds=50)
_log = structlog.get_logger(__name__)


def reply_from_state(run: LiveRun, kind: RequestKind, fleet: Fleet) -> RequestReply | None:
    """Return the answer if the run's state already decides the request; None if the run must hear it."""
    state, plan = run.state, run.definition.plan
    if state.parked is not None:
        if kind is RequestKind.TRY_NOW:
            return RequestReply(False, "STATE_CHANGED", f"the run is parked at record {state.parked_seq} now")
        return RequestReply(False, "PARKED", "the run is parked: resolve it, for example with `compensate`")
    if kind is RequestKind.TRY_NOW:
        return RequestReply(False, "RUN_ENDED", f"the run has ended: {state.phase.value}") if state.ended else None
    if kind is RequestKind.PARK:
        if stalled_since(plan, state, fleet.host.now()) is None:
            return RequestReply(False, "RESOLUTION_NOT_ALLOWED", "only a stalled run can be parked")
        return None
    if state.phase in (Phase.COMPENSATING, Phase.COMPENSATED):
        return GRANTED
    if state.ended:
        return RequestReply(False, "RUN_ENDED", f"the run has ended: {state.phase.value}")
    if not cancellable(plan, state):
        return RequestReply(False, "PAST_PIVOT", "the run has passed its point of no return")
    return None


def reply_when_durable(run: LiveRun, kind: RequestKind) -> RequestReply | None:
    """Return the answer to a request that the run has heard; None while it is not durable yet."""
    state = run.state
    if kind is RequestKind.TRY_NOW:
        return GRANTED
    if kind is RequestKind.PARK:
        if state.parked is not None and state.durable >= state.parked_seq:
            return GRANTED
    elif state.cancel is not None and state.durable >= state.seq:
        return GRANTED
    if run.gone:
        return RequestReply(False, "STATE_CHANGED", "the run went on before this could be done")
    return None


async def ask_run(
    fleet: Fleet, run: LiveRun, kind: RequestKind, actor: str, reason: str, within: timedelta
) -> RequestReply | None:
    """Tell a run of this process; return the answer when the request is durable or refused.

    Returns None when neither happens in time: then only this process's memory knows of the request.
    """
    refused = reply_from_state(run, kind, fleet)
    if refused is not None:
        return refused
    answer: asyncio.Future[RequestReply] = asyncio.get_running_loop().create_future()

    def look(changed: LiveRun) -> None:
        reply = reply_when_durable(changed, kind)
        if reply is not None and not answer.done():
            answer.set_result(reply)

    run.watchers.append(look)
    if kind is RequestKind.TRY_NOW:
        log_tried_now(run, actor, reason)
    try:
        run.tell(_signal(kind, actor, reason))
        look(run)
        async with asyncio.timeout(within.total_seconds()):
            return await answer
    except TimeoutError:
        return None
    finally:
        if look in run.watchers:
            run.watchers.remove(look)


def log_tried_now(run: LiveRun, actor: str, reason: str) -> None:
    """Write to the log who had a run tried now: its journal has no record of it."""
    _log.info(TRIED_NOW, run_id=str(run.info.id), actor=actor, reason=reason)


def _signal(kind: RequestKind, actor: str, reason: str) -> ev.Signal:
    match kind:
        case RequestKind.CANCEL:
            return ev.CancelAsked(actor, reason)
        case RequestKind.PARK:
            return ev.ParkRequested(actor, reason)
        case RequestKind.TRY_NOW:
            return ev.TryNow()


class RequestServer:
    """Hears the requests that other processes wrote for runs of this one, and changes of resources."""

    def __init__(self, fleet: Fleet, connect: Connect, changed: Callable[[], None]) -> None:
        self._fleet = fleet
        self._connect = connect
        self._changed = changed
        self._heard = asyncio.Event()
        self._busy: set[int] = set()

    async def run(self) -> None:
        """Listen for ever. Raises when the connection breaks; the caller starts it again."""
        connection = await self._connect()
        try:
            await connection.add_listener(requests.REQUESTS, self._on_request)
            await connection.add_listener(requests.RESOURCES, self._on_resources)
            self._changed()
            while True:
                await self.serve(connection)
                try:
                    async with asyncio.timeout(POLL.total_seconds()):
                        await self._heard.wait()
                except TimeoutError:
                    self._changed()  # notifications are a hint only
                self._heard.clear()
        finally:
            connection.terminate()

    async def serve(self, connection: asyncpg.Connection[Any]) -> None:
        """Answer the open requests about the runs of this process."""
        for request in await requests.open_requests(connection, self._fleet.process):
            if request.id not in self._busy:
                self._busy.add(request.id)
                self._fleet.host.spawn(self._serve(request))

    async def asked(self, connection: asyncpg.Connection[Any], runs: list[UUID]) -> dict[UUID, ev.Signal]:
        """Return the unanswered cancel requests of runs that were just claimed and are not driven yet."""
        cancels = await requests.cancels_of(connection, runs)
        return {run: ev.CancelAsked(request.actor, request.reason) for run, request in cancels.items()}

    async def adopted(self, connection: asyncpg.Connection[Any], runs: list[LiveRun]) -> None:
        """Answer the earlier requests about runs that were just claimed."""
        if runs:
            await self.serve(connection)

    async def _serve(self, request: RunRequest) -> None:
        try:
            run = self._fleet.get(request.run_id)
            if run is None:
                return
            reply = await ask_run(self._fleet, run, request.kind, request.actor, request.reason, ANSWER_WITHIN)
            if reply is None:
                return  # the request stays open and is served again
            connection = await self._connect()
            try:
                await requests.answer(connection, request.id, reply)
            finally:
                await connection.close()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
            _log.warning(LISTEN_FAILED, error=type(error).__name__)
        finally:
            self._busy.discard(request.id)

    def _on_request(self, *_: object) -> None:
        self._heard.set()

    def _on_resources(self, *_: object) -> None:
        self._changed()


async def wait_for_reply(database: Executes, request: int, within: timedelta) -> RequestReply | None:
    """Return the answer of a run's owner to a request; None when there is none in time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within.total_seconds()
    while True:
        reply = await requests.read_answer(database, request)
        left = end - loop.time()
        if reply is not None or left <= 0:
            return reply
        await asyncio.sleep(min(LOOK.total_seconds(), left))
