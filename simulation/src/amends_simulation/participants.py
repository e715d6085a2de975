"""The participants of a simulation: a barrier or a plain method for each step, and a log of what really happened.

Called by `wire` when a call is delivered, and by `verdict`, which judges the log.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from amends_saga.plan import ExpressionError, MethodKind, Plan, Scope
from amends_testkit.barrier import MemoryBarrier, ModelRefusedError

from amends_simulation.virtual import seconds

OK, FAILED_PRECONDITION, ABORTED, INTERNAL, UNAVAILABLE = 0, 9, 10, 13, 14
REASONS = {"STEP_FENCED": ABORTED, "KEY_REUSED": FAILED_PRECONDITION, "ACTION_UNKNOWN": FAILED_PRECONDITION}
BARRIER = ("amends-barrier", "1")


class RealEffect(NamedTuple):
    """One thing that really happened."""

    at: float
    run: str
    step: str
    undo: bool


class Said(NamedTuple):
    """A participant's answer."""

    code: int
    response: bytes = b""
    reason: str = ""
    trailers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class SimulatedDefinition:
    """A saga whose expressions are texts: the input says which steps are left out and which cannot be built."""

    plan: Plan

    def when(self, index: int, scope: Scope) -> bool:
        """Return whether the input does not leave the step out."""
        return b"without " + self.plan.steps[index].name.encode() not in scope.input

    def request(self, index: int, scope: Scope) -> bytes:
        """Return the step's request, made of the input and the responses that it uses."""
        name = self.plan.steps[index].name.encode()
        if b"broken " + name in scope.input:
            raise ExpressionError("index out of range")
        return self._text(b"do", index, scope)

    def compensation(self, index: int, scope: Scope) -> bytes:
        """Return the compensation's request; with its own response when it uses it."""
        compensation = self.plan.steps[index].compensation
        own = scope.responses.get(index, b"nothing") if compensation is not None and compensation.uses_self else b""
        return self._text(b"undo", index, scope) + own

    def _text(self, verb: bytes, index: int, scope: Scope) -> bytes:
        used = b",".join(scope.responses.get(u, b"-") for u in self.plan.steps[index].uses)
        return b" ".join((verb, self.plan.steps[index].name.encode(), scope.run_id.encode(), used))


@dataclass
class Habits:
    """The manner in which a participant treats a step of a run: drawn once."""

    declines: int
    """How many more calls of the action it rejects."""
    refuses: int
    """How many more calls of the compensation it rejects."""


@dataclass
class SimulatedParticipants:
    """All of them. `plans` maps services to the one saga that calls them, which tells the kinds of their methods."""

    chance: Random
    plans: Mapping[str, Plan]
    barrier: MemoryBarrier = field(default_factory=MemoryBarrier)
    effects: list[RealEffect] = field(default_factory=list)
    unkind: float = 0.0
    """How often an answer is an error although all is well."""
    down: bool = False
    _habits: dict[tuple[str, str], Habits] = field(default_factory=dict)
    _seen: dict[str, bytes] = field(default_factory=dict)
    _numbers: int = 0

    def standing(self, run: str, step: str) -> int:
        """Return how many effects of a step stand."""
        mine = [effect.undo for effect in self.effects if effect.run == run and effect.step == step]
        return len(mine) - 2 * sum(mine)

    def response(self, run: str, step: str) -> bytes:
        """Return what a step answers, or would: it says nothing new when it is called again."""
        return f"r-{run[:8]}-{step}".encode()

    def kind(self, path: str, step: str) -> MethodKind:
        """Return what the method of a step promises."""
        plan = self.plans[path.split("/")[1]]
        return plan.steps[plan.index[step]].action.kind

    def handle(self, path: str, request: bytes, said: Mapping[str, str]) -> Said:
        """Serve one call, at one moment."""
        if self.down:
            return Said(UNAVAILABLE)
        run, step, operation = said["amends-run-id"], said["amends-step"], said["amends-operation"]
        kind = self.kind(path, step)
        if kind is MethodKind.READ:
            self._numbers += 1
            return Said(OK, b"%d" % self._numbers)
        if kind is MethodKind.GUARDED:
            return self._guarded(request, said, run, step, operation)
        return self._plain(kind, said["amends-idempotency-key"], run, step, operation)

    def _guarded(self, request: bytes, said: Mapping[str, str], run: str, step: str, operation: str) -> Said:
        key = said["amends-idempotency-key"]
        if operation == "void":
            stored = self.barrier.void(key, said["amends-void-of"])
            trailer = ("amends-void", "voided" if stored is None else "already-done")
            return Said(OK, stored or b"", trailers=(BARRIER, trailer))
        try:
            stored = self.barrier.before(key, operation, said.get("amends-action-outcome", ""), request)
        except ModelRefusedError as refusal:
            reason = str(refusal)
            return Said(REASONS[reason], reason=reason, trailers=(BARRIER,))
        if stored is None:
            if self._declines(run, step, operation):
                return Said(FAILED_PRECONDITION, trailers=(BARRIER,))
            stored = self.response(run, step)
            self._effect(run, step, operation)
            self.barrier.after(key, operation, request, stored)
        return self._answer(stored, BARRIER)

    def _plain(self, kind: MethodKind, key: str, run: str, step: str, operation: str) -> Said:
        response, standing = self.response(run, step), self.standing(run, step)
        if operation == "compensation":
            if standing and self._declines(run, step, operation):
                return Said(FAILED_PRECONDITION)
            for _ in range(standing):
                self._effect(run, step, operation)
            return self._answer(response)
        if not (kind is MethodKind.KEYED and key in self._seen) and not (kind is MethodKind.IDEMPOTENT and standing):
            if self._declines(run, step, operation):
                return Said(FAILED_PRECONDITION)
            self._seen[key] = response
            self._effect(run, step, operation)
        return self._answer(response)

    def _effect(self, run: str, step: str, operation: str) -> None:
        self.effects.append(RealEffect(seconds(), run, step, operation == "compensation"))

    def _declines(self, run: str, step: str, operation: str) -> bool:
        habits = self._habits.get((run, step))
        if habits is None:
            declines = self.chance.choices((0, 1, 1_000_000), (85, 5, 10))[0]
            refuses = self.chance.choices((0, 1, 2), (90, 7, 3))[0]
            habits = self._habits[run, step] = Habits(declines, refuses)
        if operation == "action":
            habits.declines -= 1
            return habits.declines >= 0
        habits.refuses -= 1
        return habits.refuses >= 0

    def _answer(self, response: bytes, *trailers: tuple[str, str]) -> Said:
        if self.chance.random() < self.unkind:
            return Said(self.chance.choice((INTERNAL, UNAVAILABLE)))
        return Said(OK, response, trailers=trailers)
