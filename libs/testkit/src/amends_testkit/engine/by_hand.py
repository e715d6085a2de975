"""One owner of a run, driven by hand: tests say what is on disk and what participants answer.

Expressions and admission are answered at once unless a test holds them back. Called by the tests of the engine and
by the script that records golden journals.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from amends_saga.engine import RunState, advance, check_resolution, initial, replay, start
from amends_saga.engine import events as ev
from amends_saga.engine.events import Operation, Outcome
from amends_saga.plan import Plan

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
RETRY = timedelta(seconds=1)
CALLS = {
    "": Operation.ACTION,
    "undo": Operation.COMPENSATION,
    "void": Operation.VOID,
    "void-undo": Operation.VOID_COMPENSATION,
}
NAMES = {call: f"{name} " if name else "" for name, call in CALLS.items()}


class ByHand:
    """An owner. Calls are named after their step: `a`, `undo a`, `void a`, `void-undo a`."""

    def __init__(
        self,
        plan: Plan,
        *,
        errors: Mapping[str, str] | None = None,
        left_out: str = "",
        holds_admission: bool = False,
        now: datetime = EPOCH,
    ) -> None:
        """Begin a run. `errors` maps a call to why its expression fails; `when` of `left_out` is false."""
        self.plan = plan
        self.errors = dict(errors or {})
        self.left_out = left_out
        self.holds_admission = holds_admission
        self.now = now
        self.fence = 1
        self.journal: list[ev.Recorded] = []
        self.made: list[str] = []
        """Every call that was made, in order."""
        self.until: datetime | None = None
        """Until when the owner has nothing to do."""
        self.commands: list[ev.Command] = []
        """Everything that the engine commanded."""
        self.state: RunState = initial(plan, "run-1")
        deadline = now + plan.deadline if plan.deadline else None
        self.state, commands = start(plan, self.state, ev.Started(b"input", deadline), now)
        self._follow(commands)

    @classmethod
    def ready(cls, plan: Plan, **facts: object) -> "ByHand":
        """Return a run whose start is on disk."""
        run = cls(plan, **facts)  # type: ignore[arg-type]
        return run.settle()

    # ------------------------------------------------------------ what it shows

    @property
    def flying(self) -> tuple[str, ...]:
        """Return the calls under way, in the order of the steps."""
        steps = enumerate(self.state.steps)
        return tuple(self.name(i, step.flight) for i, step in steps if step.flight is not None)

    @property
    def last(self) -> ev.Event:
        """Return the last record of the journal."""
        return self.journal[-1].event

    def events(self, kind: type) -> list[ev.Event]:
        """Return all records of one kind."""
        return [entry.event for entry in self.journal if isinstance(entry.event, kind)]

    def name(self, index: int, call: Operation) -> str:
        """Return the name of a call, as tests write it."""
        return f"{NAMES[call]}{self.plan.steps[index].name}"

    def step(self, name: str) -> int:
        """Return the index of a step."""
        return self.plan.index[name]

    # ------------------------------------------------------------ what happens to it

    def settle(self) -> "ByHand":
        """Let everything reach the disk, and what follows from that too."""
        while self.state.durable < self.state.seq:
            self.tell(ev.Durable(self.state.seq))
        return self

    def durable(self, seq: int) -> "ByHand":
        """Let records up to `seq` reach the disk."""
        return self.tell(ev.Durable(seq))

    def ok(self, *calls: str, response: bytes = b"r") -> "ByHand":
        """Answer calls with OK. A void answered so had run before."""
        for call in calls:
            self.reply(call, ev.Reply(Outcome.OK, response))
        return self

    def rejected(self, call: str, reason: str = "", message: str = "no") -> "ByHand":
        """Answer a call with a rejection."""
        return self.reply(call, ev.Reply(Outcome.REJECTED, code=9, reason=reason, message=message))

    def voided(self, call: str) -> "ByHand":
        """Answer a void: its operation never runs."""
        return self.reply(call, ev.Reply(Outcome.VOIDED))

    def unknown(
        self, call: str, *, again: timedelta | None = RETRY, reason: str = "", give_up: timedelta | None = None
    ) -> "ByHand":
        """Leave a call without an answer. It may be tried `again` so much later; None: its policy is exhausted."""
        retry_at = self.now + again if again is not None else None
        give_up_at = self.now + give_up if give_up is not None else None
        reply = ev.Reply(Outcome.UNKNOWN, b"", 14, reason, "no answer", retry_at, give_up_at)
        return self.reply(call, reply)

    def reply(self, call: str, reply: ev.Reply) -> "ByHand":
        """Answer a call that is under way."""
        kind, _, step = call.rpartition(" ")
        assert call in self.flying, f"{call} is not under way, only {', '.join(self.flying) or 'nothing'}"
        return self.tell(ev.Replied(self.step(step), CALLS[kind], reply))

    def refused(self, call: str, until: timedelta) -> "ByHand":
        """Let a breaker, bulkhead or budget hold a call back."""
        kind, _, step = call.rpartition(" ")
        return self.tell(ev.Refused(self.step(step), CALLS[kind], self.now + until, "held back"))

    def wait(self, by: timedelta = RETRY) -> "ByHand":
        """Let time pass, and let the engine look again."""
        self.now += by
        return self.tell(None)

    def cancel(self) -> "ByHand":
        """Ask for the end of the run, as a person does."""
        return self.tell(ev.CancelAsked("ann", "not needed"))

    def park(self) -> "ByHand":
        """Ask that the stalled run parks, as a person does."""
        return self.tell(ev.ParkRequested("ann", "too long"))

    def try_now(self) -> "ByHand":
        """Ask that what waits for another attempt is called at once, as a person does."""
        return self.tell(ev.TryNow())

    def release(self) -> "ByHand":
        """Ask the owner to give the run up."""
        return self.tell(ev.ReleaseRequested())

    def tell(self, signal: ev.Signal | None) -> "ByHand":
        """Give the engine a signal, and follow its commands."""
        self.until = None
        self.state, commands = advance(self.plan, self.state, signal, self.now)
        self._follow(commands)
        return self

    def successor(self, *, lost: int = 0) -> "ByHand":
        """Return the next owner, which reads the journal without its last `lost` records."""
        return self._next(self.journal[: len(self.journal) - lost])

    def refusal(self, action: ev.ResolutionAction, **facts: object) -> str:
        """Return the reason why a person may not take this decision; empty when it is allowed."""
        refused = check_resolution(self.plan, self.state, self._decision(action, facts))
        return refused.reason if refused is not None else ""

    def objection(self, action: ev.ResolutionAction, **facts: object) -> str:
        """Return what a person is told who may not take this decision; empty when it is allowed."""
        refused = check_resolution(self.plan, self.state, self._decision(action, facts))
        return refused.message if refused is not None else ""

    def resolve(self, action: ev.ResolutionAction, **facts: object) -> "ByHand":
        """Take a decision as a person; return the owner that goes on."""
        decision = self._decision(action, facts)
        refused = check_resolution(self.plan, self.state, decision)
        assert refused is None, refused
        entry = ev.Recorded(len(self.journal) + 1, self.fence + 1, self.now, decision)
        return self._next([*self.journal, entry])

    # ------------------------------------------------------------ inside

    def _decision(self, action: ev.ResolutionAction, facts: dict[str, object]) -> ev.Resolved:
        parked = self.state.parked
        assert parked is not None, "the run is not parked"
        decision = ev.Resolved(action, parked.step, parked.call, "ann", "because")
        return decision._replace(**facts)  # type: ignore[arg-type]

    def _next(self, journal: list[ev.Recorded]) -> "ByHand":
        after = object.__new__(ByHand)
        after.__dict__ |= self.__dict__
        after.errors = dict(self.errors)
        after.fence = self.fence + 1
        after.journal = list(journal)
        after.made, after.commands = [], []
        after.state = replay(self.plan, "run-1", after.fence, journal)
        return after.tell(None)

    def _follow(self, commands: list[ev.Command]) -> None:
        pending = list(commands)
        while pending:
            command = pending.pop(0)
            self.commands.append(command)
            match command:
                case ev.Record(entry):
                    self.journal.append(entry)
                case ev.Send(step, call):
                    self.made.append(self.name(step, call))
                case ev.Wait(until):
                    self.until = until
                case ev.Admit() if self.holds_admission:
                    continue
                case ev.Admit(step):
                    pending = self._heard(ev.Admitted(step)) + pending
                case ev.Prepare(step, call):
                    pending = self._heard(self._prepared(step, call)) + pending

    def _heard(self, signal: ev.Signal) -> list[ev.Command]:
        self.until = None
        self.state, commands = advance(self.plan, self.state, signal, self.now)
        return commands

    def _prepared(self, index: int, call: Operation) -> ev.Prepared:
        step_plan = self.plan.steps[index]
        used = [self.state.steps[u].response or b"" for u in step_plan.uses]
        error = self.errors.get(self.name(index, call)) or (
            call is Operation.ACTION and self.errors.get(f"undo {step_plan.name}")
        )
        own = step_plan.compensation is not None and step_plan.compensation.uses_self
        if call is Operation.COMPENSATION:
            error = self.errors.get(f"undo {step_plan.name}")
            undo = b"undo " + b",".join([*used, self.state.steps[index].response or b""])
            return ev.Prepared(index, call, error=error) if error else ev.Prepared(index, call, compensation=undo)
        if error and not (own and self.errors.get(step_plan.name) is None):
            return ev.Prepared(index, call, error=error)
        if step_plan.name in self.left_out:
            return ev.Prepared(index, call, runs=False)
        undo_now = b"undo " + b",".join(used) if step_plan.compensation is not None and not own else None
        return ev.Prepared(index, call, request=b"do " + b",".join(used), compensation=undo_now)
