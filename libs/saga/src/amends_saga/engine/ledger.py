"""Makes the state of a run from its journal, for a new owner and for showing a run.

Called after a claim has committed. A journal with a gap, or without a beginning, is never run.
"""

from collections.abc import Iterable
from typing import NamedTuple

from amends_saga.engine.events import Parked, Recorded, Released, Started
from amends_saga.engine.evolve import fold
from amends_saga.engine.state import RunState, StepRun, initial
from amends_saga.plan import Plan


class UnreadableJournalError(Exception):
    """The journal has a gap, does not begin at 1, or has records that this version does not know."""


class Ledger(NamedTuple):
    """A journal folded record by record, with what the next owner must know about earlier owners."""

    state: RunState
    last_fence: int = 0
    rested: bool = False
    """The last owner let go with nothing under way."""
    unseen: bool = False
    """Some owner was replaced without having let go."""


def append(plan: Plan, ledger: Ledger, entry: Recorded) -> Ledger:
    """Return the ledger with one more record. Raises UnreadableJournalError."""
    if entry.seq != ledger.state.seq + 1:
        raise UnreadableJournalError(f"record {entry.seq} follows record {ledger.state.seq}")
    if (entry.seq == 1) is not isinstance(entry.event, Started):
        raise UnreadableJournalError("the journal does not begin with the start of the run")
    unseen = ledger.unseen or not _handed_over(ledger, entry.fence)
    rested = isinstance(entry.event, (Released, Parked))
    return Ledger(fold(plan, ledger.state, entry), entry.fence, rested, unseen)


def owned(ledger: Ledger, fence: int) -> RunState:
    """Return the state that the owner with `fence` begins with."""
    unseen = ledger.unseen or not _handed_over(ledger, fence)
    state = ledger.state
    steps = state.steps
    if unseen:
        # An open intent without an answer: an owner before this one may have made the call.
        steps = tuple(_inherited(step) if step.intent_seq and step.done is None else step for step in steps)
    # What an owner before this one let go of, this one has to let go of anew: a row is given back with a record.
    return state._replace(fence=fence, durable=state.seq, successor=unseen, released=0, steps=steps)


def replay(plan: Plan, run_id: str, fence: int, journal: Iterable[Recorded]) -> RunState:
    """Return the state that the owner with `fence` begins with. Raises UnreadableJournalError."""
    ledger = Ledger(initial(plan, run_id, fence))
    for entry in journal:
        ledger = append(plan, ledger, entry)
    if ledger.state.seq == 0:
        raise UnreadableJournalError("the journal is empty")
    return owned(ledger, fence)


def _inherited(step: StepRun) -> StepRun:
    return step._replace(in_doubt=True, inherited=step.intent_seq > step.forced_seq)


def _handed_over(ledger: Ledger, fence: int) -> bool:
    """Return whether the next owner knows everything that the owner of the last record knew."""
    if ledger.last_fence in (0, fence):
        return True
    return ledger.rested and fence == ledger.last_fence + 1
