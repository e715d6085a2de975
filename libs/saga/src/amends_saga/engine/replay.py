"""Makes the state of a run from its journal, for a new owner and for whoever shows a run.

Called after a claim has committed. A journal with a gap, or without a beginning, is never run.
"""

from collections.abc import Iterable

from amends_saga.engine.events import Parked, Recorded, Released, Started
from amends_saga.engine.evolve import fold
from amends_saga.engine.state import RunState, initial
from amends_saga.plan import Plan


class UnreadableJournalError(Exception):
    """The journal has a gap, does not begin at 1, or has records that this version does not know."""


def replay(plan: Plan, run_id: str, fence: int, journal: Iterable[Recorded]) -> RunState:
    """Return the state that the owner with `fence` begins with. Raises UnreadableJournalError."""
    state = initial(plan, run_id, fence)
    unseen = False
    before: Recorded | None = None
    for entry in journal:
        if entry.seq != state.seq + 1:
            raise UnreadableJournalError(f"record {entry.seq} follows record {state.seq}")
        if (before is None) is not isinstance(entry.event, Started):
            raise UnreadableJournalError("the journal does not begin with the start of the run")
        unseen = unseen or (before is not None and not _handed_over(before, entry.fence))
        state = fold(plan, state, entry)
        before = entry
    if before is None:
        raise UnreadableJournalError("the journal is empty")
    unseen = unseen or not _handed_over(before, fence)
    steps = state.steps
    if unseen:
        # An open intent without an answer: an owner before this one may have made the call.
        steps = tuple(step._replace(in_doubt=True) if step.intent and step.done is None else step for step in steps)
    return state._replace(durable=state.seq, successor=unseen, steps=steps)


def _handed_over(last: Recorded, fence: int) -> bool:
    """Return whether the next owner knows all that the owner of the last record did."""
    if last.fence == fence:
        return True
    rested = isinstance(last.event, (Released, Parked))
    return rested and fence == last.fence + 1
