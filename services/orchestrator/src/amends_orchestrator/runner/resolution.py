"""A person's decision about a parked run: a claim and the record of the decision, in one transaction.

A parked run has no owner. The process that was asked claims it (fence + 1) and drives it on. Called by the API.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import UUID

from amends_chassis.database import Executes, Lends
from amends_saga.engine import RunState, check_resolution
from amends_saga.engine import events as ev
from amends_saga.engine.evolve import fold
from amends_saga.journal import RULES_VERSION, encode

from amends_orchestrator.journal.decisions import claim_decided, lock_run, record_decision
from amends_orchestrator.journal.reader import read_journal, read_run
from amends_orchestrator.journal.records import Claimed, RunRow, State, StoredRecord
from amends_orchestrator.journal.telling import Announcement
from amends_orchestrator.runner.fleet import Fleet, restore
from amends_orchestrator.runner.live import LiveRun
from amends_orchestrator.runner.ports import PinnedDefinition, PinnedDefinitions
from amends_orchestrator.runner.summary import line, state_of


class ResolutionRefusedError(Exception):
    """The decision cannot be taken: a reason for programs and a sentence for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class PersonDecision:
    """A person's decision. `result` is the serialised response to assume, None when none was given."""

    action: ev.ResolutionAction
    expected_seq: int
    actor: str
    reason: str
    effect: ev.Effect | None = None
    result: bytes | None = None
    amendment: int | None = None
    """For AMEND: the step to run instead."""


async def resolve(
    pool: Lends, fleet: Fleet, definitions: PinnedDefinitions, run_id: UUID, decision: PersonDecision
) -> LiveRun:
    """Record the decision and drive the run on. Raises ResolutionRefusedError, DefinitionError."""
    async with pool.acquire() as connection:
        known = await read_run(connection, run_id)
    if known is None:
        raise ResolutionRefusedError("RUN_UNKNOWN", f"there is no run {run_id}")
    # Load it before the transaction: a task with a connection must not wait for another. The digest never changes.
    definition = await definitions.pinned(known.digest)
    async with pool.acquire() as connection:
        async with connection.transaction():
            row, records = await _locked(connection, run_id, decision.expected_seq)
            fence = row.fence + 1
            state = restore(definition, Claimed(_with_fence(row, fence), records))
            entry = _entry(definition, state, decision, fleet)
            data = encode(definition.plan, entry)
            await record_decision(connection, run_id, entry.seq, fence, data, _told(fleet, row, definition, entry))
            after = fold(definition.plan, state, entry)
            shown = line(definition.plan, after)
            await claim_decided(connection, run_id, fleet.process, fence, state_of(after), shown)
        taken = Claimed(_with_fence(row, fence), (*records, StoredRecord(entry.seq, fence, data)))
        return fleet.adopt(definition, taken)


async def _locked(connection: Executes, run_id: UUID, expected_seq: int) -> tuple[RunRow, tuple[StoredRecord, ...]]:
    """Return the run and its journal, locked until the transaction ends. Raises ResolutionRefusedError.

    `expected_seq` is the sequence number of the parked record that the person has seen; 0: the person has seen none.
    """
    if not await lock_run(connection, run_id):
        raise ResolutionRefusedError("RUN_UNKNOWN", f"there is no run {run_id}")
    row = await read_run(connection, run_id)
    assert row is not None
    if row.state is not State.PARKED:
        raise _not_parked(row, expected_seq)
    if row.rules > RULES_VERSION:
        raise ResolutionRefusedError(
            "RESOLUTION_NOT_ALLOWED", "a newer orchestrator wrote this run's journal; ask that one"
        )
    return row, await read_journal(connection, run_id)


def _not_parked(row: RunRow, expected_seq: int) -> ResolutionRefusedError:
    if expected_seq:
        return ResolutionRefusedError("STATE_CHANGED", f"the run is {row.state.name}, not PARKED")
    if row.state.ended:
        return ResolutionRefusedError("RUN_ENDED", f"the run has ended: {row.state.name}")
    message = f"the run is {row.state.name} and not parked: retry it now, park it first, or wait for its next attempt"
    return ResolutionRefusedError("RUN_NOT_PARKED", message)


def _entry(definition: PinnedDefinition, state: RunState, decision: PersonDecision, fleet: Fleet) -> ev.Recorded:
    parked = state.parked
    if parked is None or state.parked_seq != decision.expected_seq:
        raise ResolutionRefusedError("STATE_CHANGED", f"the run is parked at record {state.parked_seq} now")
    now = fleet.host.now()
    deadline = None
    if state.deadline is not None and state.parked_at is not None:
        deadline = state.deadline + (now - state.parked_at)
    resolved = ev.Resolved(
        decision.action,
        parked.step,
        parked.call,
        decision.actor,
        decision.reason,
        decision.effect,
        decision.result,
        deadline,
        decision.amendment,
    )
    refused = check_resolution(definition.plan, state, resolved)
    if refused is not None:
        raise ResolutionRefusedError(refused.reason, refused.message)
    return ev.Recorded(state.seq + 1, state.fence, now, resolved)


def _told(fleet: Fleet, row: RunRow, definition: PinnedDefinition, entry: ev.Recorded) -> Announcement | None:
    assert isinstance(entry.event, ev.Resolved)
    info = fleet.host.info(row.id, row.namespace, row.saga, row.key, row.traceparent, row.rules)
    return fleet.host.announcer.resolved(definition.plan, info, entry.event)


def _with_fence(row: RunRow, fence: int) -> RunRow:
    return replace(row, fence=fence)
