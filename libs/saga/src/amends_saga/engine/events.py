"""The events that the journal keeps, the signals that it does not keep, and the commands to a run's owner.

Events and signals are folded by `evolve`; commands come from `decide`. Steps are indices into the plan. They are
NamedTuples because an owner makes dozens of them for each run and the explorer hashes millions.
"""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class Operation(StrEnum):
    """The operation of a step that a call performs."""

    ACTION = "action"
    COMPENSATION = "compensation"
    VOID = "void"
    """The void of the action."""
    VOID_COMPENSATION = "void-compensation"
    """The void of the compensation, when a person skips it."""


class Outcome(StrEnum):
    """The outcome of a call."""

    OK = "ok"
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    VOIDED = "voided"


class UndoReason(StrEnum):
    """The reason why a run undoes its effects."""

    REJECTED = "rejected"
    EXHAUSTED = "exhausted"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    PERSON = "person"
    EXPRESSION = "expression"


class ParkReason(StrEnum):
    """The reason why a run waits for a person."""

    REJECTED = "REJECTED"
    PLAIN_IN_DOUBT = "PLAIN_IN_DOUBT"
    KEY_REUSED = "KEY_REUSED"
    NOT_GUARDED = "NOT_GUARDED"
    ACTION_UNKNOWN = "ACTION_UNKNOWN"
    ANSWER_TOO_LARGE = "ANSWER_TOO_LARGE"
    EXPRESSION_FAILED = "EXPRESSION_FAILED"
    RETENTION_PASSED = "RETENTION_PASSED"
    WINDOW_PASSED = "WINDOW_PASSED"
    BY_PERSON = "BY_PERSON"


class ResolutionAction(StrEnum):
    """A person's possible decisions about a parked run."""

    RETRY = "retry"
    SKIP = "skip"
    COMPENSATE = "compensate"
    AMEND = "amend"
    """Run one of the saga's amendments instead of the steps after the pivot that have not ended."""


class Effect(StrEnum):
    """A person's statement about a plain call whose effect the machine cannot know."""

    HAPPENED = "happened"
    NONE = "none"


STEP_FENCED = "STEP_FENCED"
"""The barrier's reason for refusing an action that was voided or undone: proof that it never acts again."""

PARKING_REASONS = frozenset(
    {ParkReason.KEY_REUSED, ParkReason.NOT_GUARDED, ParkReason.ACTION_UNKNOWN, ParkReason.ANSWER_TOO_LARGE}
)
"""Reasons in an answer that no retry mends."""


# ---------------------------------------------------------------- events, kept by the journal


class Started(NamedTuple):
    """The run began; this is always record 1."""

    input: bytes
    deadline: datetime | None


class Intent(NamedTuple):
    """A call that must not be forgotten is about to be made."""

    step: int


class AttemptFailed(NamedTuple):
    """An attempt ended without a definite answer and will be repeated."""

    step: int
    call: Operation
    code: int
    message: str
    attempt: int


class Answered(NamedTuple):
    """An operation has its final answer."""

    step: int
    call: Operation
    outcome: Outcome
    in_doubt: bool = False
    response: bytes = b""
    code: int = 0
    reason: str = ""
    message: str = ""


class Skipped(NamedTuple):
    """The condition `when` of the step was false."""

    step: int


class TurnedBack(NamedTuple):
    """The run decided to undo its effects."""

    reason: UndoReason
    step: int | None
    undo: tuple[int, ...]
    message: str = ""


class Parked(NamedTuple):
    """The run stopped, and waits for a person."""

    reason: ParkReason
    step: int | None
    call: Operation
    message: str = ""


class Resolved(NamedTuple):
    """A person decided about the parked run."""

    action: ResolutionAction
    step: int | None
    call: Operation
    actor: str
    reason: str
    effect: Effect | None = None
    result: bytes | None = None
    deadline: datetime | None = None
    """The new deadline: time that the run was parked does not count."""
    amendment: int | None = None
    """The step to run instead, for AMEND."""


class CancelRequested(NamedTuple):
    """A request to cancel the run was granted."""

    actor: str
    reason: str


class Ended(NamedTuple):
    """The run is COMPLETED or COMPENSATED."""

    completed: bool


class Released(NamedTuple):
    """The owner gave the run up while no call was under way."""

    fence: int


Event = (
    Started
    | Intent
    | AttemptFailed
    | Answered
    | Skipped
    | TurnedBack
    | Parked
    | Resolved
    | CancelRequested
    | Ended
    | Released
)


class Recorded(NamedTuple):
    """An event with its place in the journal."""

    seq: int
    fence: int
    at: datetime
    event: Event


# ---------------------------------------------------------------- signals, known to the owner alone


class Reply(NamedTuple):
    """A participant's answer, classified, with what the retry policy says about another attempt."""

    outcome: Outcome
    response: bytes = b""
    code: int = 0
    reason: str = ""
    message: str = ""
    retry_at: datetime | None = None
    """When to try again; None: the policy's attempts are exhausted or the code is not retried. Calls that are not
    `bounded` are repeated without end: for them it is never None."""
    give_up_at: datetime | None = None
    """The policy's cap in time, for an operation that waits for a breaker."""


class Durable(NamedTuple):
    """Every record up to this sequence number is on disk."""

    seq: int


class Prepared(NamedTuple):
    """Expressions of a step were evaluated."""

    step: int
    call: Operation
    runs: bool = True
    """False when `when` is false."""
    request: bytes | None = None
    compensation: bytes | None = None
    """None when the compensation uses the action's own response, or there is none."""
    error: str | None = None


class Admitted(NamedTuple):
    """Breaker, bulkhead and budget let the step's action pass; its intent may be written."""

    step: int


class Refused(NamedTuple):
    """Breaker, bulkhead or budget refused a call. It is not an attempt."""

    step: int
    call: Operation
    retry_at: datetime
    message: str = ""


class Replied(NamedTuple):
    """A call was answered or timed out."""

    step: int
    call: Operation
    reply: Reply


class ParkRequested(NamedTuple):
    """A person wants a stalled run to stop and wait."""

    actor: str
    reason: str


class CancelAsked(NamedTuple):
    """Someone requests to cancel the run. When the request is granted, a record CancelRequested is written."""

    actor: str
    reason: str


class TryNow(NamedTuple):
    """A person wants what waits for another attempt to be called at once. It leaves no record: waits end sooner."""


class ReleaseRequested(NamedTuple):
    """The owner wants to give the run up."""


Signal = Durable | Prepared | Admitted | Refused | Replied | ParkRequested | CancelAsked | TryNow | ReleaseRequested


# ---------------------------------------------------------------- commands


class Record(NamedTuple):
    """Append this to the journal. It is folded already; report Durable when it is on disk."""

    entry: Recorded


class Prepare(NamedTuple):
    """Evaluate expressions: for ACTION `when`, request and compensation; for COMPENSATION its request alone."""

    step: int
    call: Operation


class Admit(NamedTuple):
    """Pass breaker, bulkhead and budget for the step's action and hold the place until it is sent."""

    step: int


class Send(NamedTuple):
    """Make the call. The request is in the state."""

    step: int
    call: Operation


class Wait(NamedTuple):
    """Do nothing before this time unless a signal comes."""

    until: datetime


Command = Record | Prepare | Admit | Send | Wait
