"""Runs the real engine for one owner and remembers every transition, so that worlds are tuples of numbers.

An owner's state is made canonical first: sequence numbers keep their order but not their size, and times and texts that
no rule reads are dropped. Called by `moves`.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from amends_saga.engine import ledger as real_ledger
from amends_saga.engine import machine as real_machine
from amends_saga.engine import resolve as real_resolve
from amends_saga.engine.events import (
    Admit,
    Admitted,
    Answered,
    AttemptFailed,
    Command,
    Durable,
    Event,
    Operation,
    Parked,
    ParkRequested,
    Prepare,
    Prepared,
    Record,
    Recorded,
    Refused,
    ReleaseRequested,
    Replied,
    Reply,
    Resolved,
    Send,
    Started,
    TurnedBack,
)
from amends_saga.engine.ledger import Ledger
from amends_saga.engine.state import RunState, StepRun, answer_known, initial
from amends_saga.explore.participants import Message
from amends_saga.plan import Plan

NOW = datetime(2000, 1, 1, tzinfo=UTC)
DEADLINE = NOW + timedelta(hours=1)
AFTER = NOW + timedelta(days=1)
"""A moment at which the deadline has passed."""
HELD = NOW + timedelta(days=2)
"""Until when a call that is held back may not be made: until a move says that it may."""
UNTOUCHED = StepRun()
ExpressionResults = tuple[bool | None, ...]
"""For each step whether its `when` is true; None: its request cannot be built."""


class Engine(NamedTuple):
    """The modules of the engine that an owner runs; tests put broken copies here."""

    machine: Any = real_machine
    ledger: Any = real_ledger
    resolve: Any = real_resolve


class Owner(NamedTuple):
    """The knowledge of one owner, with its records that are not on disk yet."""

    state: RunState
    queue: tuple[Event, ...] = ()
    late: bool = False
    """For this owner the deadline has passed."""

    @property
    def now(self) -> datetime:
        """Return the time at which this owner decides."""
        return AFTER if self.late else NOW


class Transition(NamedTuple):
    """The result of an owner's transition."""

    owner: int
    sent: tuple[Message, ...]
    abandoned: tuple[Message, ...] = ()
    """Calls that are under way and whose answers nobody waits for any more."""


class Owners:
    """All owners and journals that an exploration has met, by number."""

    def __init__(self, plan: Plan, engine: Engine, expressions: ExpressionResults) -> None:
        self._plan = plan
        self._engine = engine
        self._expressions = expressions
        self.owners: list[Owner] = []
        self.disks: list[Ledger] = []
        self._owner_ids: dict[Owner, int] = {}
        self._disk_ids: dict[Ledger, int] = {}
        self._transitions: dict[tuple[Any, ...], Transition] = {}
        self._written: dict[tuple[Any, ...], int] = {}
        self._waits: dict[int, int] = {}
        self._silent: dict[int, int] = {}
        self._waiting: dict[int, tuple[Message, ...]] = {}

    # ------------------------------------------------------------ numbers

    def _owner_id(self, owner: Owner) -> int:
        owner = owner._replace(state=_canonical(owner.state, len(owner.queue)))
        found = self._owner_ids.get(owner)
        if found is None:
            found = self._owner_ids[owner] = len(self.owners)
            self.owners.append(owner)
        return found

    def _disk_id(self, disk: Ledger) -> int:
        disk = disk._replace(state=_canonical(disk.state._replace(durable=disk.state.seq), 0))
        found = self._disk_ids.get(disk)
        if found is None:
            found = self._disk_ids[disk] = len(self.disks)
            self.disks.append(disk)
        return found

    # ------------------------------------------------------------ transitions

    def begin(self) -> tuple[int, int]:
        """Return the empty journal and the first owner, which has queued the start of the run."""
        empty = initial(self._plan, "run")
        event = Started(b"input", DEADLINE if self._plan.deadline else None)
        state, commands = self._engine.machine.start(self._plan, empty, event, NOW)
        transition = self._after(Owner(empty), state, commands, NOW)
        return self._disk_id(Ledger(empty)), transition.owner

    def reply(self, owner: int, message: Message, reply: Reply) -> Transition:
        """Return the owner's reaction to an answer."""
        return self._do(owner, Replied(message.step, message.call, reply))

    def pass_deadline(self, owner: int) -> Transition:
        """Return the owner's reaction when it sees that the deadline has passed."""
        key = (owner, "deadline")
        if key not in self._transitions:
            before = self.owners[owner]._replace(late=True)
            state, commands = self._engine.machine.advance(self._plan, before.state, None, AFTER)
            self._transitions[key] = self._after(before, state, commands, AFTER)
        return self._transitions[key]

    def release(self, owner: int) -> Transition:
        """Return the owner's reaction when it must give the run up."""
        return self._do(owner, ReleaseRequested())

    def hold(self, owner: int, message: Message) -> Transition:
        """Return the owner's reaction when a breaker, bulkhead or budget holds a call back."""
        return self._do(owner, Refused(message.step, message.call, HELD))

    def held(self, owner: int) -> bool:
        """Return whether the owner waits for a call that is held back."""
        state = self.owners[owner].state
        return not _released(state) and any(step.retry_at == HELD for step in state.steps)

    def let_pass(self, owner: int) -> Transition:
        """Return the owner's reaction when calls may pass again."""
        key = (owner, "pass")
        if key not in self._transitions:
            before = self.owners[owner]
            steps = tuple(step._replace(retry_at=None) for step in before.state.steps)
            state, commands = self._engine.machine.advance(
                self._plan, before.state._replace(steps=steps), None, before.now
            )
            self._transitions[key] = self._after(before, state, commands, before.now)
        return self._transitions[key]

    def park(self, owner: int) -> Transition:
        """Return the owner's reaction when a person wants the stalled run to stop."""
        return self._do(owner, ParkRequested("a person", "it has stalled"))

    def durable(self, owner: int, count: int) -> Transition:
        """Return the owner's reaction when the first `count` records of its queue are on disk."""
        key = (owner, "durable", count)
        if key not in self._transitions:
            before = self.owners[owner]
            signal = Durable(before.state.durable + count)
            state, commands = self._engine.machine.advance(self._plan, before.state, signal, before.now)
            rest = before._replace(queue=before.queue[count:])
            self._transitions[key] = self._after(rest, state, commands, before.now)
        return self._transitions[key]

    def awaited(self, owner: int) -> int:
        """Return how many records the owner waits for before it does more; 0: it waits for none."""
        if owner not in self._waits:
            self._waits[owner] = self._awaited(owner)
        return self._waits[owner]

    def _awaited(self, owner: int) -> int:
        before = self.owners[owner]
        if before.state.ended or before.state.parked or _released(before.state):
            return len(before.queue)
        for count in range(1, len(before.queue) + 1):
            after = self.owners[self.durable(owner, count).owner]
            if self.durable(owner, count).sent or len(after.queue) > len(before.queue) - count:
                return count
        return 0

    def write(self, disk: int, owner: int, count: int, fence: int) -> int:
        """Return the journal with the first `count` records of the owner's queue."""
        key = (disk, owner, count, fence)
        if key not in self._written:
            ledger = self.disks[disk]
            for event in self.owners[owner].queue[:count]:
                entry = Recorded(ledger.state.seq + 1, fence, NOW, event)
                ledger = self._engine.ledger.append(self._plan, ledger, entry)
            self._written[key] = self._disk_id(ledger)
        return self._written[key]

    def take_over(self, disk: int, fence: int, *, late: bool = False) -> Transition:
        """Return the next owner as it begins with the journal on disk; `late`: after the deadline."""
        key = (disk, "take over", fence, late)
        if key not in self._transitions:
            state = self._engine.ledger.owned(self.disks[disk], fence)
            before = Owner(state, late=late)
            state, commands = self._engine.machine.advance(self._plan, state, None, before.now)
            self._transitions[key] = self._after(before, state, commands, before.now)
        return self._transitions[key]

    def resolve(self, disk: int, decision: Resolved, fence: int) -> tuple[int, Transition]:
        """Return the journal with a person's decision, and the owner that continues."""
        key = (disk, decision, fence)
        if key not in self._written:
            ledger = self.disks[disk]
            entry = Recorded(ledger.state.seq + 1, fence, NOW, decision)
            self._written[key] = self._disk_id(self._engine.ledger.append(self._plan, ledger, entry))
        after = self._written[key]
        return after, self.take_over(after, fence)

    def silence(self, owner: int) -> int:
        """Return the owner as a zombie: none of its records will reach the disk, so it never undoes anything."""
        if owner not in self._silent:
            before = self.owners[owner]
            state = before.state._replace(fence=0, successor=False, cancel=None)
            self._silent[owner] = self._owner_id(before._replace(queue=(), state=state))
        return self._silent[owner]

    def live(self, owner: int) -> tuple[Message, ...]:
        """Return the calls whose answers the owner waits for."""
        if owner not in self._waiting:
            self._waiting[owner] = tuple(_live(self.owners[owner].state))
        return self._waiting[owner]

    def _do(self, owner: int, signal: Any) -> Transition:
        key = (owner, signal)
        if key not in self._transitions:
            before = self.owners[owner]
            state, commands = self._engine.machine.advance(self._plan, before.state, signal, before.now)
            answered = signal.step if isinstance(signal, Replied) else None
            self._transitions[key] = self._after(before, state, commands, before.now, answered)
        return self._transitions[key]

    # ------------------------------------------------------------ commands

    def _after(
        self, before: Owner, state: RunState, commands: list[Command], now: datetime, answered: int | None = None
    ) -> Transition:
        """Carry out commands, answering at once those that need no world: expressions and admission."""
        queue = list(before.queue)
        sent: list[Message] = []
        pending = list(commands)
        while pending:
            command = pending.pop(0)
            match command:
                case Record(entry):
                    queue.append(_plain(entry.event))
                case Prepare(step, _):
                    state, more = self._engine.machine.advance(self._plan, state, self._evaluate(state, command), now)
                    pending = more + pending
                case Admit(step):
                    state, more = self._engine.machine.advance(self._plan, state, Admitted(step), now)
                    pending = more + pending
                case Send(step, _):
                    sent.append(_message(state, command))
        abandoned = tuple(
            _message(before.state, Send(i, step.flight))
            for i, step in enumerate(before.state.steps)
            if step.flight is not None and i != answered and state.decided and not before.state.decided
        )
        return Transition(self._owner_id(Owner(state, tuple(queue), before.late)), tuple(sent), abandoned)

    def _evaluate(self, state: RunState, command: Prepare) -> Prepared:
        step_plan = self._plan.steps[command.step]
        if command.call is Operation.ACTION and self._expressions[command.step] is None:
            return Prepared(command.step, command.call, error="it fails")
        used = b",".join(b"%d=%s" % (u, state.steps[u].response or b"") for u in step_plan.uses)
        runs = not step_plan.has_when or (self._expressions[command.step] is True and b"=0" not in used)
        own = step_plan.compensation is not None and step_plan.compensation.uses_self
        undo = used if step_plan.compensation is not None and not own else None
        if command.call is Operation.COMPENSATION:
            answer = b"|" + (state.steps[command.step].response or b"nothing") if own else b""
            return Prepared(command.step, command.call, compensation=used + answer)
        return Prepared(command.step, command.call, runs, used, undo)


def _message(state: RunState, command: Send) -> Message:
    step = state.steps[command.step]
    payload = {Operation.ACTION: step.request, Operation.COMPENSATION: step.compensation}.get(command.call) or b""
    known = command.call is Operation.COMPENSATION and answer_known(step)
    return Message(command.step, command.call, payload, known)


def _live(state: RunState) -> Iterable[Message]:
    for index, step in enumerate(state.steps):
        if step.flight is not None:
            yield _message(state, Send(index, step.flight))


def _released(state: RunState) -> bool:
    return state.releasing and state.released == state.seq


def _plain(event: Event) -> Event:
    """Return the event without its text for people."""
    return event._replace(message="") if isinstance(event, (AttemptFailed, Answered, TurnedBack, Parked)) else event


ON_DISK = 2
"""The canonical number of the last record on disk. Rules ask only whether a record is on disk, and whether a step's
intent is older than what a person said of it."""


def _canonical(state: RunState, queued: int) -> RunState:
    """Return the state with the smallest equivalent sequence numbers, and without texts for people."""
    durable = state.durable
    top = ON_DISK if durable else 0

    def to(seq: int) -> int:
        return min(seq, 1) if seq <= durable else top + seq - durable

    last = top + (queued or (1 if state.seq > durable else 0))
    decided, parked = state.decided, state.parked
    return state._replace(
        run_id="",
        steps=tuple(_canonical_step(step, to) for step in state.steps),
        seq=last,
        durable=top,
        decided_seq=to(state.decided_seq),
        parked_seq=to(state.parked_seq),
        released=last if state.released == state.seq else 0,
        parked_at=NOW if state.parked_at else None,
        moved_at=None,
        decided=decided._replace(message="") if decided else None,
        parked=parked._replace(message="") if parked else None,
    )


def _canonical_step(step: StepRun, to: Callable[[int], int]) -> StepRun:
    if step == UNTOUCHED:
        return step
    intent = to(step.intent_seq)
    return step._replace(
        intent_seq=ON_DISK if intent == 1 and step.intent_seq > step.forced_seq > 0 else intent,
        answered_seq=to(step.answered_seq),
        forced_seq=to(step.forced_seq),
        calls=0,
        refused=False,
        waiting_since=NOW if step.waiting_since else None,
        retry_at=HELD if step.retry_at == HELD else None,
        give_up_at=None,
        message="",
    )
