"""The questions of the probe: each brings one promise of the barrier about and looks at answers and effects.

Called by `amends probe`. Every question uses keys and requests of its own; a promise is shown only if the action
answered OK where the promise speaks of an action that ran.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import uuid4

from amends_cli.probe.requests import Make, differ
from amends_cli.probe.verdict import NotShownError, PromiseBrokenError, QuestionResult, QuestionState
from amends_cli.probe.wire import ProbeAnswer, ProbeChannel

TOGETHER = 8
"""Calls at once."""
ROUNDS = 10
"""How often an action and its compensation race."""


@dataclass
class Subject:
    """The methods under test, with what fills their requests."""

    wire: ProbeChannel
    action: str
    compensation: str
    """Paths, e.g. `/shop.payments.v1.PaymentService/Charge`."""
    make_action: Make
    make_compensation: Make
    observe: str | None = None
    make_observe: Make | None = None

    def operation(self) -> "ProbedOperation":
        """Return a fresh operation with a key that nobody has used."""
        return ProbedOperation(self, f"probe-{uuid4().hex}")

    @property
    def sees_everything(self) -> bool:
        """Return whether all operations are observed by one and the same read, e.g. of a balance."""
        return self.make_observe is not None and not differ(self.make_observe)


class ProbedOperation:
    """One action with its compensation, under one key."""

    def __init__(self, subject: Subject, unique: str) -> None:
        self._subject = subject
        self.unique = unique
        self.key = f"{unique}/key"

    async def act(self, *, unique: str | None = None) -> ProbeAnswer:
        """Send the action, with the request of another operation if `unique` is given."""
        request = self._subject.make_action(unique or self.unique)
        return await self._subject.wire.ask(self._subject.action, request, self.key, "action")

    async def must_act(self) -> ProbeAnswer:
        """Send the action, which must answer OK for anything to be shown. Raises NotShownError."""
        answer = await self.act()
        if not answer.ok:
            raise NotShownError(f"the action never answered OK: {answer}: {answer.message}")
        return answer

    async def undo(self, known: str = "unknown") -> ProbeAnswer:
        """Send the compensation, saying what the saga knows of the action."""
        request = self._subject.make_compensation(self.unique)
        path = self._subject.compensation
        return await self._subject.wire.ask(path, request, self.key, "compensation", amends_action_outcome=known)

    async def void(self, of: str = "action") -> ProbeAnswer:
        """Send a void: an order that the action, or its compensation, never runs."""
        path = self._subject.action if of == "action" else self._subject.compensation
        return await self._subject.wire.ask(path, b"", self.key, "void", amends_void_of=of)

    def general(self, seen: tuple[str, bytes] | None) -> tuple[str, bytes] | None:
        """Return what a read has shown without what names this operation, to compare it with that of another."""
        return seen and (seen[0], seen[1].replace(self.unique.encode(), b""))

    async def see(self) -> tuple[str, bytes] | None:
        """Read the effects; None when nothing was given to read them with."""
        subject = self._subject
        if subject.observe is None or subject.make_observe is None:
            return None
        return await subject.wire.read(subject.observe, subject.make_observe(self.unique))


Case = Callable[[Subject], Awaitable[None]]


def expect(answer: ProbeAnswer, code: str, reason: str, what: str) -> None:
    """Raise PromiseBrokenError unless the answer has this status and reason."""
    if answer.code.name != code or (reason and answer.reason != reason):
        wanted = f"{code} {reason}".strip()
        raise PromiseBrokenError(f"{what} answered {answer}, not {wanted}")


def same(before: object, after: object, what: str) -> None:
    """Raise PromiseBrokenError unless the effects are the same as before."""
    if before != after:
        raise PromiseBrokenError(f"{what}: the effects changed")


async def repeated(subject: Subject) -> None:
    """Repeat the action: it answers with the stored response and has no second effect."""
    one = subject.operation()
    first = await one.must_act()
    after = await one.see()
    again = await one.act()
    expect(again, "OK", "", "the action again")
    if again.body != first.body:
        raise PromiseBrokenError("the action again answered other bytes")
    same(after, await one.see(), "the action again")


async def at_once(subject: Subject) -> None:
    """Send the action several times at once: it has one effect and one response."""
    single = await _single(subject)
    one = subject.operation()
    before = await one.see()
    answers = await asyncio.gather(*(one.act() for _ in range(TOGETHER)))
    for answer in answers:
        expect(answer, "OK", "", f"one of {TOGETHER} actions at once")
    if len({answer.body for answer in answers}) != 1:
        raise PromiseBrokenError(f"{TOGETHER} actions at once answered different bytes")
    if single is not None:
        same(single, one.general(await one.see()), f"{TOGETHER} actions at once against a single one")
    expect(await one.undo("ok"), "OK", "", "the compensation")
    same(before, await one.see(), f"{TOGETHER} actions at once, undone once")


async def _single(subject: Subject) -> tuple[str, bytes] | None:
    """Return what the read shows of a single action; None when it is not the same for every operation."""
    shown = []
    for _ in range(1 if subject.sees_everything else 2):
        one = subject.operation()
        await one.must_act()
        shown.append(one.general(await one.see()))
        expect(await one.undo("ok"), "OK", "", "the compensation")
    return shown[0] if shown[0] == shown[-1] else None


async def reused(subject: Subject) -> None:
    """Another request under the same key: refused."""
    if not differ(subject.make_action):
        raise NotShownError("the requests of two operations are the same: give one with ${unique} in it")
    one = subject.operation()
    await one.must_act()
    after = await one.see()
    other = await one.act(unique=subject.operation().unique)
    expect(other, "FAILED_PRECONDITION", "KEY_REUSED", "another request under the key")
    same(after, await one.see(), "another request under the key")


async def null_compensation(subject: Subject) -> None:
    """Compensate an action that never ran: the compensation succeeds, without effect."""
    one = subject.operation()
    before = await one.see()
    expect(await one.undo(), "OK", "", "the compensation without an action")
    same(before, await one.see(), "the compensation without an action")


async def unknown_action(subject: Subject) -> None:
    """Compensate an action that is said to be ok, with nothing remembered of it: the service refuses."""
    one = subject.operation()
    before = await one.see()
    expect(await one.undo("ok"), "FAILED_PRECONDITION", "ACTION_UNKNOWN", "the compensation of a forgotten action")
    same(before, await one.see(), "the compensation of a forgotten action")


async def late_action(subject: Subject) -> None:
    """Send the action after a compensation that found nothing: the service refuses it for ever."""
    one = subject.operation()
    expect(await one.undo(), "OK", "", "the compensation without an action")
    before = await one.see()
    expect(await one.act(), "ABORTED", "STEP_FENCED", "the late action")
    same(before, await one.see(), "the late action")


async def action_after_undo(subject: Subject) -> None:
    """Send the action after it was undone: the service refuses it, and the effect stays undone."""
    one = subject.operation()
    before = await one.see()
    await one.must_act()
    expect(await one.undo("ok"), "OK", "", "the compensation")
    same(before, await one.see(), "action and compensation")
    expect(await one.act(), "ABORTED", "STEP_FENCED", "the action after its compensation")
    expect(await one.undo("ok"), "OK", "", "the compensation again")
    same(before, await one.see(), "the action after its compensation")


async def race(subject: Subject) -> None:
    """Send action and compensation at once: whichever wins, no effect is left."""
    for number in range(ROUNDS):
        one = subject.operation()
        before = await one.see()
        if number % 2:
            undo, action = await asyncio.gather(one.undo(), one.act())
        else:
            action, undo = await asyncio.gather(one.act(), one.undo())
        if not action.ok:
            expect(action, "ABORTED", "STEP_FENCED", "the action beside its compensation")
        expect(undo, "OK", "", "the compensation beside its action")
        expect(await one.undo(), "OK", "", "the compensation again")
        same(before, await one.see(), "action and compensation at once")


async def void_unused(subject: Subject) -> None:
    """Void an action that never ran: the service answers voided, and the action never runs."""
    one = subject.operation()
    before = await one.see()
    answer = await one.void()
    expect(answer, "OK", "", "the void")
    if answer.void != "voided":
        raise PromiseBrokenError(f"the void of an action that never ran said {answer.void or 'nothing'}, not voided")
    expect(await one.act(), "ABORTED", "STEP_FENCED", "the action after its void")
    same(before, await one.see(), "the action after its void")


async def void_used(subject: Subject) -> None:
    """Void an action that ran: the service answers with the stored response, without an effect."""
    one = subject.operation()
    first = await one.must_act()
    after = await one.see()
    answer = await one.void()
    expect(answer, "OK", "", "the void")
    if answer.void != "already-done" or answer.body != first.body:
        raise PromiseBrokenError("the void of an action that ran did not return its stored response")
    same(after, await one.see(), "the void of an action that ran")


async def void_of_compensation(subject: Subject) -> None:
    """Void a compensation: it never runs, and the effect stays."""
    one = subject.operation()
    await one.must_act()
    after = await one.see()
    answer = await one.void("compensation")
    expect(answer, "OK", "", "the void of the compensation")
    if answer.void != "voided":
        raise PromiseBrokenError(
            f"the void of a compensation that never ran said {answer.void or 'nothing'}, not voided"
        )
    expect(await one.undo("ok"), "ABORTED", "STEP_FENCED", "the compensation after its void")
    same(after, await one.see(), "the compensation after its void")


CASES: tuple[tuple[int, str, Case], ...] = (
    (1, "the action again returns the stored response", repeated),
    (1, f"{TOGETHER} actions at once have one effect", at_once),
    (1, "another request under its key is refused", reused),
    (2, "a compensation without its action has no effect", null_compensation),
    (2, "a compensation of a forgotten action is refused", unknown_action),
    (3, "an action after its null compensation is refused", late_action),
    (3, "an action after it was undone is refused", action_after_undo),
    (4, "action and compensation at once leave nothing", race),
    (5, "a void stops an action that never ran", void_unused),
    (5, "a void tells the response of an action that ran", void_used),
    (5, "a void stops a compensation that never ran", void_of_compensation),
)


async def ask_all(subject: Subject) -> list[QuestionResult]:
    """Ask every question, in order, and say what each answer proves."""
    try:
        doubt = await _doubt(subject)
    except NotShownError as reason:
        nothing = [
            QuestionResult(promise, question, QuestionState.NOT_SHOWN, str(reason)) for promise, question, _ in CASES
        ]
        return [*nothing, _marked(subject.wire)]
    return [*[await _ask(subject, doubt, *case) for case in CASES], _marked(subject.wire)]


async def _doubt(subject: Subject) -> str:
    """Return why the observed read tells nothing of effects; empty when it does, or none was given.

    Raises NotShownError when the action does not even answer OK: then no refusal proves anything.
    """
    one = subject.operation()
    before = await one.see()
    stable = before == await one.see()
    await one.must_act()
    after = await one.see()
    await one.undo("ok")
    if after is None or (stable and before != after):
        return ""
    subject.observe = None  # the answers are still worth asking for
    if not stable:
        return "the observed read changes by itself"
    return f"the observed read does not change when the action has its effect: it answered {after[0]}"


async def _ask(subject: Subject, doubt: str, promise: int, question: str, case: Case) -> QuestionResult:
    try:
        await case(subject)
    except PromiseBrokenError as broken:
        return QuestionResult(promise, question, QuestionState.BROKEN, str(broken))
    except NotShownError as reason:
        return QuestionResult(promise, question, QuestionState.NOT_SHOWN, str(reason))
    if doubt:
        return QuestionResult(promise, question, QuestionState.NOT_SHOWN, doubt)
    if subject.observe is None:
        return QuestionResult(promise, question, QuestionState.UNOBSERVED)
    return QuestionResult(promise, question, QuestionState.HELD)


def _marked(wire: ProbeChannel) -> QuestionResult:
    """Judge whether every answer of the service said that a barrier was passed."""
    question = "every answer carries amends-barrier: 1"
    if not wire.answers:
        return QuestionResult(0, question, QuestionState.NOT_SHOWN, "the service answered nothing")
    missing = wire.unmarked
    if not missing:
        return QuestionResult(0, question, QuestionState.HELD)
    more = f", and {len(missing) - 1} more" if missing[1:] else ""
    return QuestionResult(0, question, QuestionState.BROKEN, f"without it: {missing[0]}{more}")
