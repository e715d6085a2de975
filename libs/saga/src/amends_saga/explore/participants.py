"""The explorer's model of participants: the barrier for guarded methods, and each kind of plain method.

Called by `moves` whenever a call is delivered. A participant's state is a tuple so that worlds hash fast.
"""

from dataclasses import dataclass
from typing import NamedTuple

from amends_saga.engine.events import STEP_FENCED, Operation, Outcome, ParkReason, Reply
from amends_saga.plan import MethodKind, Plan


class BrokenInvariant(NamedTuple):
    """A broken invariant, and the step whose effect breaks it."""

    step: int
    text: str


class Message(NamedTuple):
    """A call on the wire."""

    step: int
    call: Operation
    payload: bytes
    known: bool
    """For compensations: the run knows that its action answered OK."""


NO_ROW, DONE, VOID = "-", "d", "v"
"""What the barrier keeps of an operation. Texts, because states of the world are compared and hashed by the million."""


class ParticipantState(NamedTuple):
    """The memory of one step's participant, and what really happened there."""

    action: str = NO_ROW
    """The barrier's row of the action: NO_ROW, DONE or VOID. For plain methods: whether the key was seen."""
    compensation: str = NO_ROW
    """The barrier's row of the compensation: NO_ROW, DONE or VOID."""
    effects: int = 0
    undone: int = 0
    payload: bytes | None = None


class Delivery(NamedTuple):
    """One possible result of delivering a call."""

    text: str
    reply: Reply
    after: ParticipantState
    violations: tuple[BrokenInvariant, ...] = ()


@dataclass(frozen=True, slots=True)
class BarrierRules:
    """The promises of the barrier; a test may break each of them."""

    void_record: bool = True
    """A void, and a compensation without its action, leave the record that stops a late copy."""
    refuses_unknown: bool = True
    """Told that the action answered OK, a compensation that finds no row refuses."""
    returns_stored: bool = True
    """The action again returns the stored response and has no second effect."""
    fences: bool = True
    """The action after its compensation or void is refused."""


OK = Reply(Outcome.OK, b"r")
REJECTED = Reply(Outcome.REJECTED)
VOIDED = Reply(Outcome.VOIDED)
FENCED = Reply(Outcome.REJECTED, reason=STEP_FENCED)
REUSED = Reply(Outcome.UNKNOWN, reason=ParkReason.KEY_REUSED)
UNKNOWN_ACTION = Reply(Outcome.REJECTED, reason=ParkReason.ACTION_UNKNOWN)

DISORDER = "compensation out of order"
OTHER_DATA = "compensation built from other data than its action"
TOO_LATE = "action effect after its compensation"


class ParticipantModel:
    """All participants of one plan."""

    def __init__(self, plan: Plan, rules: BarrierRules, *, rejections: bool, compensation_rejections: bool) -> None:
        self._plan = plan
        self._rules = rules
        self._rejections = rejections
        self._compensation_rejections = compensation_rejections
        self._sound = rules == BarrierRules()

    def deliver(self, all_: tuple[ParticipantState, ...], message: Message) -> list[Delivery]:
        """Return all possible results of delivering the call."""
        kind = self._plan.steps[message.step].action.kind
        if kind is MethodKind.READ:
            used = any(message.step in step.uses for step in self._plan.steps)
            here = all_[message.step]
            return [Delivery(f"answers {v}", Reply(Outcome.OK, b"%d" % v), here) for v in ((0, 1) if used else (1,))]
        handle = self._guarded if kind is MethodKind.GUARDED else self._plain
        return handle(all_, message)

    def inert(self, all_: tuple[ParticipantState, ...], message: Message) -> bool:
        """Return whether delivering the call, now or ever, changes only what its caller hears."""
        kind = self._plan.steps[message.step].action.kind
        here = all_[message.step]
        if kind is MethodKind.READ:
            return True
        if kind is not MethodKind.GUARDED or not self._sound:
            return False
        if message.call in (Operation.ACTION, Operation.VOID):
            return here.action != NO_ROW
        return here.compensation != NO_ROW

    # ------------------------------------------------------------ guarded

    def _guarded(self, all_: tuple[ParticipantState, ...], message: Message) -> list[Delivery]:
        here = all_[message.step]
        match message.call:
            case Operation.ACTION:
                return self._guarded_action(here, message)
            case Operation.COMPENSATION:
                return self._guarded_compensation(all_, here, message)
            case Operation.VOID:
                if here.action == DONE:
                    return [Delivery("cannot void: it ran", OK, here)]
                after = here._replace(action=VOID) if self._rules.void_record else here
                return [Delivery("voided", VOIDED, after)]
            case Operation.VOID_COMPENSATION:
                if here.compensation == DONE:
                    return [Delivery("cannot void: it ran", OK, here)]
                action = VOID if here.action == NO_ROW else here.action
                return [Delivery("compensation voided", VOIDED, here._replace(action=action, compensation=VOID))]

    def _guarded_action(self, here: ParticipantState, message: Message) -> list[Delivery]:
        rules = self._rules
        if (here.action == VOID or here.compensation == DONE) and rules.fences:
            return [Delivery("STEP_FENCED", FENCED, here)]
        if here.action == DONE and rules.returns_stored:
            if message.payload != here.payload:
                return [
                    Delivery(
                        "KEY_REUSED",
                        REUSED,
                        here,
                        (BrokenInvariant(message.step, "KEY_REUSED although nobody reused a key"),),
                    )
                ]
            return [Delivery("stored answer", OK, here)]
        bad = (BrokenInvariant(message.step, TOO_LATE),) if here.compensation != NO_ROW or here.undone else ()
        after = here._replace(action=DONE, effects=here.effects + 1, payload=message.payload)
        found = [Delivery("has its effect, ok", OK, after, bad)]
        if self._rejections:
            found.append(Delivery("rejected", REJECTED, here))
        return found

    def _guarded_compensation(
        self, all_: tuple[ParticipantState, ...], here: ParticipantState, message: Message
    ) -> list[Delivery]:
        if here.action == NO_ROW and message.known and self._rules.refuses_unknown:
            return [Delivery("ACTION_UNKNOWN", UNKNOWN_ACTION, here)]
        if here.action == NO_ROW:
            after = here._replace(action=VOID, compensation=DONE) if self._rules.void_record else here
            return [Delivery("never ran: void, ok", OK, after)]
        if here.compensation != NO_ROW:
            fenced = here.compensation == VOID
            return [Delivery("STEP_FENCED" if fenced else "stored answer", FENCED if fenced else OK, here)]
        if here.action == VOID:
            return [Delivery("nothing to undo, ok", OK, here._replace(compensation=DONE))]
        bad = self._undoing(all_, message)
        after = here._replace(compensation=DONE, undone=here.undone + 1)
        found = [Delivery("undone, ok", OK, after, tuple(bad))]
        if self._compensation_rejections:
            found.append(Delivery("compensation rejected", REJECTED, here))
        return found

    def _undoes(self, index: int, here: ParticipantState) -> bytes:
        """Return what a compensation must say about the effect that it undoes."""
        compensation = self._plan.steps[index].compensation
        own = compensation is not None and compensation.uses_self
        return (here.payload or b"") + (b"|r" if own else b"")

    # ------------------------------------------------------------ plain

    def after_window(self, all_: tuple[ParticipantState, ...], message: Message) -> list[Delivery]:
        """Return the result of a KEYED call that arrives after its key was forgotten."""
        action, here = self._plan.steps[message.step].action, all_[message.step]
        if message.call is not Operation.ACTION or action.kind is not MethodKind.KEYED or action.window is None:
            return []
        return self._effect(here, message) if here.effects else []

    def _plain(self, all_: tuple[ParticipantState, ...], message: Message) -> list[Delivery]:
        here = all_[message.step]
        if message.call is Operation.ACTION:
            return self._plain_action(here, message)
        if here.effects > here.undone:
            after = here._replace(compensation=DONE, undone=here.effects)
            found = [Delivery("undone, ok", OK, after, tuple(self._undoing(all_, message)))]
            if self._compensation_rejections:
                found.append(Delivery("compensation rejected", REJECTED, here))
            return found
        return [Delivery("nothing to undo, ok", OK, here._replace(compensation=DONE))]

    def _plain_action(self, here: ParticipantState, message: Message) -> list[Delivery]:
        kind = self._plan.steps[message.step].action.kind
        stands = here.effects > here.undone
        if (kind is MethodKind.KEYED and here.effects) or (kind is MethodKind.IDEMPOTENT and stands):
            return [Delivery("ok, nothing to do", OK, here)]
        return self._effect(here, message)

    def _effect(self, here: ParticipantState, message: Message) -> list[Delivery]:
        bad = (BrokenInvariant(message.step, TOO_LATE),) if here.compensation != NO_ROW else ()
        after = here._replace(action=DONE, effects=here.effects + 1, payload=message.payload)
        found = [Delivery("has its effect, ok", OK, after, bad)]
        if self._rejections:
            found.append(Delivery("rejected", REJECTED, here))
        return found

    def _undoing(self, all_: tuple[ParticipantState, ...], message: Message) -> list[BrokenInvariant]:
        """Return the invariants that a compensation breaks if it takes effect now."""
        bad = self._order(all_, message.step)
        if message.payload != self._undoes(message.step, all_[message.step]):
            bad.append(BrokenInvariant(message.step, OTHER_DATA))
        return bad

    def _order(self, all_: tuple[ParticipantState, ...], index: int) -> list[BrokenInvariant]:
        bad = []
        pivot = self._plan.pivot
        for later in self._plan.descendants[index]:
            before_pivot = later != pivot and not self._plan.steps[later].post
            if before_pivot and all_[later].effects > all_[later].undone:
                bad.append(BrokenInvariant(later, DISORDER))
        if pivot is not None and all_[pivot].effects:
            bad.append(BrokenInvariant(pivot, "compensated although the pivot took effect"))
        return bad
