"""GetRun, ListRuns, WatchRun and ReadPayload: read runs from the durable journal alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any
from uuid import UUID

from amends_chassis.errors import InvalidArgument, NotFound
from amends_saga.compiled import CompiledSaga
from amends_saga.engine import initial
from amends_saga.engine.ledger import Ledger, UnreadableJournalError, append
from amends_saga.journal import RULES_VERSION, decode

from amends.saga.v1 import run_service_pb2 as pb
from amends_orchestrator.api.convert import event_message
from amends_orchestrator.api.payloads import Form, as_text, form_of
from amends_orchestrator.api.views import Views, check_timeline, parse_run_id
from amends_orchestrator.api.watched_runs import WatchedRuns
from amends_orchestrator.journal.reader import list_runs, read_journal
from amends_orchestrator.journal.records import RunRow, State
from amends_orchestrator.permissions import current
from amends_orchestrator.runner.ports import DefinitionError
from amends_orchestrator.runner.summary import state_of

PAGE = 50
LONGEST_PAGE = 1000
WATCH_ROWS = 500
PIECE = 64 * 1024


async def get_run(views: Views, request: pb.GetRunRequest) -> pb.GetRunResponse:
    """Return one run, by its id or by its caller's key. Raises NotFound, InvalidArgument."""
    check_timeline(request.timeline)
    form = form_of(request.payloads)
    if request.run_id:
        row = await views.row(parse_run_id(request.run_id))
    else:
        row = await views.row_by_key(request.namespace, request.idempotency_key)
    run, timeline = await views.with_timeline(row, request.timeline, form)
    return pb.GetRunResponse(run=run, timeline=timeline)


async def list_page(views: Views, request: pb.ListRunsRequest) -> pb.ListRunsResponse:
    """Return a page of runs, newest first. Raises InvalidArgument."""
    size = request.page_size or PAGE
    if not 1 <= size <= LONGEST_PAGE:
        raise InvalidArgument("PAGE_SIZE_INVALID", f"page_size is from 1 to {LONGEST_PAGE}.")
    rows = await list_runs(
        views.pool,
        namespace=request.namespace,
        namespaces=current().readable(),
        saga=request.saga,
        states=_states(request),
        stalled=request.stalled,
        before=_before(request.page_token),
        within=_within(request.run_id_prefix),
        limit=size + 1,
    )
    token = rows[size - 1].id.hex if len(rows) > size else ""
    return pb.ListRunsResponse(runs=await views.runs(rows[:size]), next_page_token=token)


def _states(request: pb.ListRunsRequest) -> list[State]:
    if len(request.states) > len(State):
        raise InvalidArgument("STATES_INVALID", f"states takes at most {len(State)} states.", field="states")
    try:
        return [State(number) for number in request.states]
    except ValueError:
        raise InvalidArgument("STATE_UNKNOWN", "states names a state that does not exist.") from None


def _within(prefix: str) -> tuple[UUID, UUID] | None:
    """Return the first and last id that begin with `prefix`; None for an empty one. Raises InvalidArgument."""
    if not prefix:
        return None
    shape = "00000000-0000-0000-0000-000000000000"
    if len(prefix) > len(shape):
        raise InvalidArgument("RUN_ID_PREFIX_INVALID", "run_id_prefix is longer than a run's id.")
    filled = [prefix + shape[len(prefix) :].replace("0", digit) for digit in "0f"]
    try:
        first, last = UUID(filled[0]), UUID(filled[1])
    except ValueError:
        first, last = UUID(int=0), UUID(int=0)
    if [str(first), str(last)] != filled:
        raise InvalidArgument("RUN_ID_PREFIX_INVALID", "run_id_prefix is not how a run's id begins.")
    return first, last


def _before(token: str) -> UUID | None:
    try:
        return UUID(hex=token) if token else None
    except ValueError:
        raise InvalidArgument("PAGE_TOKEN_INVALID", "page_token is from another list.") from None


async def read_payload(views: Views, request: pb.ReadPayloadRequest) -> AsyncIterator[pb.ReadPayloadResponse]:
    """Yield one payload in pieces of PIECE characters. Raises NotFound."""
    definition, state = await views.state(await views.row(parse_run_id(request.run_id)))
    read: Callable[[], dict[str, Any]]
    if not request.step:
        read = partial(definition.input_json, state.input)
    else:
        index = definition.plan.index.get(request.step)
        response = state.steps[index].response if index is not None else None
        if index is None or response is None:
            raise NotFound("PAYLOAD_UNKNOWN", "The run has no such step, or no response of it.", step=request.step)
        read = partial(definition.to_json, index, response)
    async with views.threads:
        text = await asyncio.to_thread(lambda: as_text(read()))
    for at in range(0, len(text), PIECE):
        yield pb.ReadPayloadResponse(text=text[at : at + PIECE])


async def watch_run(views: Views, runs: WatchedRuns, request: pb.WatchRunRequest) -> AsyncIterator[pb.WatchRunResponse]:
    """Yield the timeline from the beginning, then each new record until the run has ended."""
    form = form_of(request.payloads)
    row = await views.row(parse_run_id(request.run_id))
    try:
        definition = await views.registry.pinned(row.digest)
    except DefinitionError:
        definition = None
    if definition is None or row.rules > RULES_VERSION:
        yield pb.WatchRunResponse(run=await views.run(row, form))
        return
    timeline = _Timeline(views, definition, row, form, request.after_seq)
    with runs.watching(row.id) as watched:
        while True:
            async for answer in timeline.more():
                yield answer
            if timeline.over:
                yield pb.WatchRunResponse(run=await views.run(await views.row(row.id), form))
                return
            await runs.more(watched, timeline.seq)


class _Timeline:
    """A journal that grows while it is read."""

    def __init__(self, views: Views, definition: CompiledSaga, row: RunRow, form: Form, after: int) -> None:
        self._views = views
        self._form = form
        self._after = after
        self._definition = definition
        self._row = row
        self._ledger = Ledger(initial(definition.plan, str(row.id)))
        self._shown: State | None = None
        self._broken = False

    @property
    def over(self) -> bool:
        """Return whether no more records can be shown."""
        return self._broken or self._ledger.state.ended

    @property
    def seq(self) -> int:
        """Return the sequence number of the last record that was read."""
        return self._ledger.state.seq

    async def more(self) -> AsyncIterator[pb.WatchRunResponse]:
        """Yield the new records, without those that the watcher has already."""
        plan = self._definition.plan
        while True:
            records = await read_journal(self._views.pool, self._row.id, self._ledger.state.seq, WATCH_ROWS)
            for record in records:
                try:
                    entry = decode(plan, record.seq, record.fence, record.record)
                    self._ledger = append(plan, self._ledger, entry)
                except UnreadableJournalError:
                    self._broken = True
                    return
                state = self._ledger.state
                if record.seq <= self._after:
                    self._shown = state_of(state)
                    continue
                answer = pb.WatchRunResponse(event=event_message(plan, str(self._row.id), entry, state))
                if state_of(state) is not self._shown:
                    self._shown = state_of(state)
                    row = await self._views.row(self._row.id)
                    up_to = await read_journal(self._views.pool, self._row.id, 0, record.seq)
                    answer.run.CopyFrom(await self._views.message(row, up_to, self._form))
                yield answer
            if len(records) < WATCH_ROWS:
                return
