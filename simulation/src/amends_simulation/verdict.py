"""Judges a finished simulation by its effects and journals: the invariants, one by one.

Called by `world`. Every finding names the invariant that it breaks.
"""

from collections.abc import Callable, Iterator, Mapping
from uuid import UUID

from amends_orchestrator.journal.records import State
from amends_saga.engine import RunState, UnreadableJournalError, replay
from amends_saga.engine import events as ev
from amends_saga.engine.state import Ending, StepRun
from amends_saga.invariants import Invariant
from amends_saga.journal import decode, encode
from amends_saga.plan import MethodKind, Plan, StepPlan

from amends_simulation.database import SimulatedDatabase
from amends_simulation.participants import RealEffect, SimulatedParticipants

LEFT_OUT = (Ending.SKIPPED, Ending.BY_PERSON, Ending.NOT_CHOSEN)
"""Ends of a step of a completed run that leave no effect."""
TOLD = {
    ev.Started: "RunStarted",
    ev.TurnedBack: "RunTurnedBack",
    ev.CancelRequested: "RunCancelled",
    ev.Parked: "RunParked",
    ev.Resolved: "RunResolved",
    ev.Ended: "RunEnded",
}
"""The records that are told of whatever else happens, and the types of their events."""


def judge(
    database: SimulatedDatabase,
    participants: SimulatedParticipants,
    plan_of: Callable[[UUID], Plan],
    acknowledged: Mapping[str, UUID],
) -> list[str]:
    """Return everything that is wrong. `acknowledged` maps callers' keys to the runs that they were promised."""
    found: list[str] = [Invariant.FENCING.broken(text) for text in database.outdated]
    for key, run in acknowledged.items():
        if run not in database.runs:
            found.append(Invariant.TERMINATION.broken(f"the run of key {key} was acknowledged and is lost"))
        elif database.keys.get(("test", key)) != run:
            found.append(Invariant.START.broken(f"key {key} belongs to another run"))
    for effect in participants.effects:
        if UUID(effect.run) not in database.runs:
            what = f"run {effect.run[:8]} has an effect at {effect.step} and was forgotten"
            found.append(Invariant.JOURNAL.broken(what))
    for run, row in database.runs.items():
        mine = [effect for effect in participants.effects if effect.run == str(run)]
        found += [f"{text} (run {str(run)[:8]})" for text in _run(plan_of(run), database, row["state"], run, mine)]
    return found


def _run(plan: Plan, database: SimulatedDatabase, state: int, run: UUID, effects: list[RealEffect]) -> Iterator[str]:
    journal = database.journal[run]
    yield from _journal(journal)
    entries = [decode(plan, seq, fence, record) for seq, fence, record in sorted(journal)]
    try:
        folded = replay(plan, str(run), journal[-1][1] + 1, entries)
    except UnreadableJournalError as error:
        yield Invariant.JOURNAL.broken(str(error))
        return
    if folded != replay(plan, str(run), journal[-1][1] + 1, entries):
        yield Invariant.REPLAY.broken("the same journal gives two states")
    if [encode(plan, entry) for entry in entries] != [record for _, _, record in sorted(journal)]:
        yield Invariant.REPLAY.broken("records are not written as they were read")
    if not State(state).ended:
        yield Invariant.TERMINATION.broken(f"the run is {State(state).name} and comes to no end")
    elif not folded.ended or (state == State.COMPLETED) != (folded.phase.value == "COMPLETED"):
        said = f"the run is said to be {State(state).name}, its journal says {folded.phase.value}"
        yield Invariant.JOURNAL.broken(said)
    yield from _told(entries, run, database.outbox)
    yield from _told(entries, run, [delivery[1:] for delivery in database.deliveries])
    yield from _order(plan, folded, effects)
    for index in range(len(plan.steps)):
        yield from _step(plan, folded, index, [e for e in effects if e.step == plan.steps[index].name])


def _told(entries: list[ev.Recorded], run: UUID, events: list[tuple[UUID, int, str]]) -> Iterator[str]:
    """Compare a run's events, in the order of their commits, with its journal."""
    names = [(version, kind.rpartition(".")[2]) for told, version, kind in events if told == run]
    expected = [(entry.seq, TOLD[type(entry.event)]) for entry in entries if type(entry.event) in TOLD]
    if (found := [event for event in names if event[1] in TOLD.values()]) != expected:
        yield Invariant.JOURNAL.broken(f"its events are {found}, its journal says {expected}")
    versions = [version for version, _ in names]
    if versions != sorted(versions):
        yield Invariant.JOURNAL.broken(f"its events are not in the order of its records: {names}")


def _journal(journal: list[tuple[int, int, bytes]]) -> Iterator[str]:
    seqs = [seq for seq, _, _ in journal]
    if seqs != list(range(1, len(seqs) + 1)):
        yield Invariant.JOURNAL.broken(f"the journal has gaps or doubles: {seqs}")
    fences = [fence for _, fence, _ in journal]
    if fences != sorted(fences):
        yield Invariant.FENCING.broken(f"a record under an older fence: {fences}")


def _step(plan: Plan, state: RunState, index: int, effects: list[RealEffect]) -> Iterator[str]:
    step_plan = plan.steps[index]
    if step_plan.action.kind is MethodKind.READ:
        return
    undone = sum(effect.undo for effect in effects)
    done = len(effects) - undone
    yield from _repeats(step_plan, done, undone)
    if undone and not max(effects).undo:
        yield Invariant.ORDER.broken(f"the action of {step_plan.name} took effect after its compensation")
    if state.ended:
        yield from _at_end(step_plan, state.steps[index], state, done - undone)


def _repeats(step_plan: StepPlan, done: int, undone: int) -> Iterator[str]:
    """Yield effects that are there more often than once, and undone ones that were never done."""
    may_repeat = step_plan.action.kind is MethodKind.IDEMPOTENT and done - undone <= 1
    if done > 1 and not may_repeat:
        yield Invariant.ONE_EFFECT.broken(f"{step_plan.name} had its effect {done} times")
    undone_twice = step_plan.action.kind is MethodKind.GUARDED and undone > 1
    if undone > done or undone_twice:
        yield Invariant.ONE_EFFECT.broken(f"{step_plan.name} was undone {undone} times and done {done} times")


def _at_end(step_plan: StepPlan, step: StepRun, state: RunState, standing: int) -> Iterator[str]:
    """Yield what is wrong with the effects that a run left when it ended."""
    if state.phase.value == "COMPLETED":
        wanted = 0 if step.done in LEFT_OUT else 1
        if standing != wanted:
            yield Invariant.COMPLETENESS.broken(f"COMPLETED, and {standing} effects of {step_plan.name} stand")
    elif standing and step.undone is not Ending.BY_PERSON:
        yield Invariant.UNDONE.broken(f"COMPENSATED, and {standing} effects of {step_plan.name} stand")


def _order(plan: Plan, state: RunState, effects: list[RealEffect]) -> Iterator[str]:
    """Yield what was undone before what came after it in the graph."""
    undone = {e.step: e.at for e in effects if e.undo}
    for step, at in undone.items():
        for later in plan.descendants[plan.index[step]]:
            name = plan.steps[later].name
            if state.steps[later].undone is not Ending.BY_PERSON and undone.get(name, at) > at:
                yield Invariant.ORDER.broken(f"{step} was undone before {name}")
            if plan.steps[later].pivot and any(e.step == name for e in effects):
                yield Invariant.ORDER.broken(f"{step} was undone although the pivot {name} took effect")
