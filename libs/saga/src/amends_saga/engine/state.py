"""The state of a run as its owner sees it: what the journal says, and what only the owner knows.

Made by `ledger` from a journal, changed by `evolve` alone, read everywhere.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from amends_saga.engine.events import CancelRequested, Operation, Outcome, Parked, ParkRequested, Resolved, TurnedBack
from amends_saga.plan import Plan


class Phase(StrEnum):
    """The phase of a run."""

    RUNNING = "RUNNING"
    COMPENSATING = "COMPENSATING"
    COMPLETED = "COMPLETED"
    COMPENSATED = "COMPENSATED"


class Ending(StrEnum):
    """The way in which a step's action or compensation ended."""

    OK = "ok"
    REJECTED = "rejected"
    EXHAUSTED = "exhausted"
    """The outcome is unknown and no further attempt is made."""
    VOIDED = "voided"
    SKIPPED = "skipped"
    """`when` was false."""
    BY_PERSON = "by-person"
    NOT_CHOSEN = "not-chosen"
    """An amendment that no person has chosen."""


FINISHED = frozenset({Ending.OK, Ending.SKIPPED, Ending.BY_PERSON, Ending.NOT_CHOSEN})
"""Ends of an action after which the steps that follow may begin."""


class StepRun(NamedTuple):
    """One step of a run. Numbers of records are 0 where there is no such record."""

    # Folded from the journal: what every owner knows.
    intent_seq: int = 0
    """The record of the last intent."""
    intent_at: datetime | None = None
    done: Ending | None = None
    """How the action ended; None while it has not."""
    answered_seq: int = 0
    """The record of the action's final answer."""
    response: bytes | None = None
    in_doubt: bool = False
    """Whether any attempt, by any owner, may still be under way or have had its effect unseen."""
    undone: Ending | None = None
    """How the compensation ended; None while it has not."""
    attempts: int = 0
    """Attempts of the action that ended without a definite answer."""
    attempt_recorded: bool = False
    """The journal knows of an attempt of the action."""
    calls: int = 0
    """How often the action was called according to the journal, by all owners and in all retries."""
    refused: bool = False
    """The participant said no to the action, at its last answer."""
    retries: int = 0
    """The same for the compensation and the voids."""
    waiting_since: datetime | None = None
    """Since when it has waited for another attempt; None: it does not."""
    reason: str = ""
    """The last answer's reason, for parking and for people."""
    message: str = ""
    failed_code: int = 0
    """The gRPC status code of the action's last answer that was not OK."""
    failed_reason: str = ""
    """The reason of that answer."""
    skipping: bool = False
    """A person skips it; the void comes first."""
    assumed: bytes | None = None
    """The response that a person said to assume."""
    forced_seq: int = 0
    """The record in which a person decided to call it again; the rules of doubt do not apply to that call."""
    refused_void: Operation | None = None
    """A void that the participant refused."""
    by_person: bool = False
    """A person decided how it ended."""

    # Lost with the owner: what it has done and heard itself.
    inherited: bool = False
    """An earlier owner wrote the intent and may have made the call, and no person has decided to repeat it."""
    sent: bool = False
    """This owner sent the action and has not been answered."""
    flight: Operation | None = None
    """The call that is under way."""
    admitting: bool = False
    admitted: bool = False
    retry_at: datetime | None = None
    give_up_at: datetime | None = None
    preparing: Operation | None = None
    prepared: bool = False
    runs: bool = True
    request: bytes | None = None
    compensation: bytes | None = None
    error: str | None = None
    """Why an expression failed."""


class RunState(NamedTuple):
    """A run as its owner sees it."""

    run_id: str
    fence: int
    phase: Phase
    steps: tuple[StepRun, ...]
    input: bytes = b""
    started_at: datetime | None = None
    deadline: datetime | None = None
    seq: int = 0
    """The last record, durable or not."""
    durable: int = 0
    """The last record known to be on disk."""
    decided: TurnedBack | None = None
    decided_seq: int = 0
    parked: Parked | None = None
    parked_seq: int = 0
    parked_at: datetime | None = None
    cancel: CancelRequested | None = None
    person_undo: bool = False
    """A person resolved the run with `compensate`."""
    amending: Resolved | None = None
    """A person chose an amendment, which begins as soon as the step that the run was parked at is void."""
    amended: Resolved | None = None
    """The last such decision that was carried out: what it chose may be called."""
    successor: bool = False
    """True when an owner before this one may have left calls that the journal does not know."""
    moved_at: datetime | None = None
    """When the last record was written by which the run moved on: since then its steps wait that wait."""
    released: int = 0
    """Sequence number of this owner's Released record; equal to `seq` when nothing came after it."""

    park_request: ParkRequested | None = None
    releasing: bool = False

    @property
    def ended(self) -> bool:
        """Return whether the run is COMPLETED or COMPENSATED."""
        return self.phase in (Phase.COMPLETED, Phase.COMPENSATED)

    @property
    def settled(self) -> bool:
        """Return whether the owner has nothing left to do: ended, parked or released, and durable."""
        resting = self.ended or self.parked is not None or (self.releasing and self.released == self.seq)
        return resting and self.durable >= self.seq

    @property
    def skipped_by_person(self) -> int:
        """Return how many steps a person decided."""
        return sum(step.by_person for step in self.steps)


def chosen(state: RunState) -> int | None:
    """Return the amendment that was begun last; None for none."""
    return state.amended.amendment if state.amended is not None else None


def decided_by_person(plan: Plan, state: RunState) -> str:
    """Return what a person decided, as people read it behind the end of a run; empty for nothing."""
    amendment = chosen(state)
    if amendment is not None:
        return f" (amended by a person: {plan.steps[amendment].name})"
    count = state.skipped_by_person
    what = "decided" if state.person_undo else "skipped"
    return f" ({count} {what} by a person)" if count else ""


UNTOUCHED = StepRun()
"""The state in which every step begins. It is one object, so that a step without history is recognised by identity."""
NOT_CHOSEN = StepRun(done=Ending.NOT_CHOSEN)
"""What every amendment begins as, until a person chooses it."""


def initial(plan: Plan, run_id: str, fence: int = 1) -> RunState:
    """Return the state before the first record."""
    ordinary = len(plan.steps) - len(plan.amendments)
    steps = (UNTOUCHED,) * ordinary + (NOT_CHOSEN,) * len(plan.amendments)
    return RunState(run_id, fence, Phase.RUNNING, steps)


def after_pivot_intent(plan: Plan, state: RunState) -> bool:
    """Return whether the point of no return may have been passed.

    The pivot's intent is in the journal, or a person skipped the pivot, so that the run goes on without calling it.
    """
    if plan.pivot is None:
        return False
    pivot = state.steps[plan.pivot]
    return pivot.intent_seq > 0 or pivot.skipping or finished(pivot)


def stalled_since(plan: Plan, state: RunState, now: datetime) -> tuple[int, datetime] | None:
    """Return the longest waiting step, and since when, if longer than the plan allows; else None."""
    allowed: timedelta | None = plan.stalled_after or plan.deadline
    waiting = [(step.waiting_since, i) for i, step in enumerate(state.steps) if step.waiting_since is not None]
    if allowed is None or not waiting or state.ended or state.parked:
        return None
    since, step = min(waiting)
    return (step, since) if now - since > allowed else None


def finished(step: StepRun) -> bool:
    """Return whether the steps after this one may begin."""
    return step.done in FINISHED


def answer_known(step: StepRun) -> bool:
    """Return whether it is known that the action succeeded and with which response; a compensation sends that along."""
    return step.done is Ending.OK and step.response is not None


OUTCOME_TO_DONE = {
    Outcome.OK: Ending.OK,
    Outcome.REJECTED: Ending.REJECTED,
    Outcome.UNKNOWN: Ending.EXHAUSTED,
    Outcome.VOIDED: Ending.VOIDED,
}
