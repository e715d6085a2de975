"""A person who looks after parked runs: waits until the wire is quiet, looks into the participants, tells the truth.

Called by `world`.
"""

import asyncio
from collections.abc import Callable
from random import Random
from uuid import UUID

from amends_orchestrator.journal.records import State
from amends_orchestrator.runner.resolution import PersonDecision, ResolutionRefusedError, resolve
from amends_saga.engine import RunState, UnreadableJournalError, check_resolution, replay, resolutions
from amends_saga.engine import events as ev
from amends_saga.engine.resolve import amendments
from amends_saga.journal import decode
from amends_saga.plan import Plan

from amends_simulation.database import SimulatedDatabase
from amends_simulation.participants import SimulatedParticipants
from amends_simulation.process import AWAY, Process, SimulatedDefinitions
from amends_simulation.virtual import database_now

EVERY = 3.0
QUIET = 20.0
"""Seconds after which no call that was under way can arrive any more, those of a paused process included."""
BACKWARDS = (ev.Operation.COMPENSATION, ev.Operation.VOID_COMPENSATION)


class Person:
    """Decides about parked runs."""

    def __init__(
        self,
        chance: Random,
        database: SimulatedDatabase,
        participants: SimulatedParticipants,
        plan_of: Callable[[UUID], Plan],
        definitions: SimulatedDefinitions,
        tell: Callable[[str], None],
    ) -> None:
        self._chance = chance
        self._database = database
        self._participants = participants
        self._plan_of = plan_of
        self._definitions = definitions
        self._tell = tell

    async def work(self, ask: Callable[[], Process]) -> None:
        """Look after runs for ever; `ask` chooses the process that is asked."""
        while True:
            await asyncio.sleep(EVERY)
            for run, row in list(self._database.runs.items()):
                if row["state"] == State.PARKED:
                    await self._look(run, ask())

    async def _look(self, run: UUID, process: Process) -> None:
        try:
            plan, state = self._plan_of(run), self._state(run)
        except UnreadableJournalError:
            return  # the verdict says so
        parked = state.parked
        if parked is None or state.parked_at is None:
            return
        if (database_now() - state.parked_at).total_seconds() < QUIET:
            return
        decision = self._decide(plan, state, str(run))
        if decision is None:
            return
        self._tell(f"a person says {decision.action.value} of {str(run)[:8]}, effect {decision.effect}")
        try:
            async with asyncio.timeout(10):
                await resolve(process.pool, process.fleet, self._definitions, run, decision)
        except (ResolutionRefusedError, *AWAY) as error:
            self._tell(f"the decision was not taken: {type(error).__name__} {error}")

    def _state(self, run: UUID) -> RunState:
        plan, journal = self._plan_of(run), self._database.journal[run]
        entries = [decode(plan, seq, fence, record) for seq, fence, record in sorted(journal)]
        return replay(plan, str(run), journal[-1][1] + 1, entries)

    def _decide(self, plan: Plan, state: RunState, run: str) -> PersonDecision | None:
        """Return one of the decisions that are open and not foolish."""
        assert state.parked is not None
        step, call = state.parked.step, state.parked.call
        actions = list(resolutions(plan, state))
        self._chance.shuffle(actions)
        for action in actions:
            effect = self._truth(plan, run, step, call)
            result = self._participants.response(run, plan.steps[step].name) if step is not None else None
            if effect is ev.Effect.HAPPENED and action is ev.ResolutionAction.RETRY and call not in BACKWARDS:
                continue  # it would happen twice
            offered = amendments(plan, state) if action is ev.ResolutionAction.AMEND else ()
            amendment = self._chance.choice(offered) if offered else None
            decision = ev.Resolved(action, step, call, "ann", "", effect, result, amendment=amendment)
            if check_resolution(plan, state, decision) is None:
                return PersonDecision(action, state.parked_seq, "ann", "because", effect, result, amendment)
        return None

    def _truth(self, plan: Plan, run: str, index: int | None, call: ev.Operation) -> ev.Effect | None:
        if index is None:
            return None
        plain = plan.steps[index].action.kind.plain
        stands = self._participants.standing(run, plan.steps[index].name) > 0
        happened = not stands if call in BACKWARDS else stands
        return (ev.Effect.HAPPENED if happened else ev.Effect.NONE) if plain else None
