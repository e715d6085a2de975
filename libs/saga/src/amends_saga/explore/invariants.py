"""The invariants of a run: they compare its journal with what its participants really did.

Called by `moves` after every move. Each finding names the step whose effect is wrong. Steps that a person decided are
excused, because a person may be wrong.
"""

from amends_saga.engine.events import Operation, ParkReason
from amends_saga.engine.state import Ending, Phase, RunState, after_pivot_intent
from amends_saga.explore.participants import DISORDER, OTHER_DATA, BrokenInvariant, ParticipantState
from amends_saga.plan import MethodKind, Plan

STANDS = "COMPENSATED but an effect stands"
TWICE = "effect twice"
MISSING = "COMPLETED but an effect is missing or doubled"
NOBODYS = "an amendment that nobody chose"
AFTER_AMENDMENT = "an effect behind the pivot after its amendment"
BESIDE = "an amendment beside the effect that it replaces"
MOVES = "called although a person has chosen an amendment"
NEEDLESS = "a person is asked although a machine can undo"


def broken(plan: Plan, disk: RunState, participants: tuple[ParticipantState, ...]) -> list[BrokenInvariant]:
    """Return the invariants that do not hold."""
    bad: list[BrokenInvariant] = []
    parked = disk.parked
    if parked is not None and parked.reason is ParkReason.EXPRESSION_FAILED and disk.phase is Phase.RUNNING:
        # All calls before it are answered, and the request that could not be built was never sent.
        bad += [] if after_pivot_intent(plan, disk) else [BrokenInvariant(parked.step or 0, NEEDLESS)]
    bad += _amendments(plan, disk, participants)
    for index, here in enumerate(participants):
        if not here.effects and not here.undone and not disk.ended:
            continue
        if disk.seq == 0:
            bad.append(BrokenInvariant(index, "effect of a run that a crash would forget"))
        bad += [BrokenInvariant(index, text) for text in _step(plan, disk, index, here)]
    return bad


def after_skip(
    plan: Plan, disk: RunState, before: tuple[ParticipantState, ...], after: tuple[ParticipantState, ...]
) -> list[BrokenInvariant]:
    """Return effects that happened after a person skipped the step, and so was promised that they never would."""
    bad: list[BrokenInvariant] = []
    for index, (was, now) in enumerate(zip(before, after, strict=True)):
        step = disk.steps[index]
        acted = now.effects > was.effects and step.done is Ending.BY_PERSON
        undone = now.undone > was.undone and step.undone is Ending.BY_PERSON
        if plan.steps[index].action.kind is MethodKind.GUARDED and (acted or undone):
            bad.append(BrokenInvariant(index, "an effect after a person skipped it"))
    return bad


def after_amendment(
    plan: Plan, disk: RunState, before: tuple[ParticipantState, ...], after: tuple[ParticipantState, ...]
) -> list[BrokenInvariant]:
    """Return the steps after the pivot that took effect after the amendment that replaces them.

    Whoever chose it has said what became of a plain step that the run was parked at, and of no other.
    """
    decision = disk.amended
    if decision is None or decision.step is None or not any(before[index].effects for index in plan.amendments):
        return []
    first = not plan.steps[decision.step].amendment
    bad = []
    for index, (was, now) in enumerate(zip(before, after, strict=True)):
        step_plan = plan.steps[index]
        if now.effects == was.effects or not step_plan.post or step_plan.amendment:
            continue
        if step_plan.action.kind is MethodKind.GUARDED or (first and index != decision.step):
            bad.append(BrokenInvariant(index, AFTER_AMENDMENT))
    return bad


def while_amending(plan: Plan, owner: RunState) -> list[BrokenInvariant]:
    """Return the actions that are called although a person has chosen something else, which only waits for a void."""
    if owner.amending is None:
        return []
    return [BrokenInvariant(index, MOVES) for index, step in enumerate(owner.steps) if step.flight is Operation.ACTION]


def _amendments(plan: Plan, disk: RunState, participants: tuple[ParticipantState, ...]) -> list[BrokenInvariant]:
    """Return what is wrong with the amendments that have had their effect."""
    decisions = [decision for decision in (disk.amending, disk.amended) if decision is not None]
    chosen = [
        decision.amendment for decision in decisions if decision.step is not None and plan.steps[decision.step].post
    ]
    bad = []
    for index in plan.amendments:
        if not participants[index].effects:
            continue
        if index not in chosen and not disk.steps[index].by_person:
            bad.append(BrokenInvariant(index, NOBODYS))
        for decision in decisions:
            replaced = decision.step if decision.amendment == index else None
            guarded = replaced is not None and plan.steps[replaced].action.kind is MethodKind.GUARDED
            if replaced is not None and guarded and participants[replaced].effects:
                bad.append(BrokenInvariant(replaced, BESIDE))
    return bad


def excuse(plan: Plan, disk: RunState, found: list[BrokenInvariant]) -> tuple[BrokenInvariant, ...]:
    """Return the broken invariants without those that a person's decision explains, each once."""
    return tuple(dict.fromkeys(broken for broken in found if not _excused(plan, disk, *broken)))


def _excused(plan: Plan, disk: RunState, index: int, text: str) -> bool:
    """Return whether a person's decision explains a broken invariant of a step.

    For a plain step it explains everything. For a guarded step it explains only what the barrier was not asked to do:
    the barrier's promises hold whatever a person says. A person who only says that a plain method is to be called again
    explains its second effect, and nothing else. A person never explains a wrong compensation: asked for a response,
    the person of an exploration gives the right one.
    """
    step = disk.steps[index]
    if plan.steps[index].action.kind is MethodKind.GUARDED:
        return (step.by_person or step.skipping) and text in (STANDS, MISSING, DISORDER)
    if step.by_person:
        return text not in (OTHER_DATA, AFTER_AMENDMENT)
    return step.forced_seq > 0 and text in (TWICE, MISSING)


def _step(plan: Plan, disk: RunState, index: int, here: ParticipantState) -> list[str]:
    kind = plan.steps[index].action.kind
    standing = here.effects - here.undone
    bad = []
    if here.effects > 1 and (kind is not MethodKind.IDEMPOTENT or standing > 1):
        bad.append(TWICE)
    if here.undone > max(here.effects, 1) or (kind is MethodKind.GUARDED and here.undone > 1):
        bad.append("undone twice")
    if here.undone > here.effects:
        bad.append("undone more than done")
    if disk.phase is Phase.COMPENSATED and standing > 0:
        bad.append(STANDS)
    if disk.phase is Phase.COMPLETED and kind is not MethodKind.READ:
        left_out = disk.steps[index].done in (Ending.SKIPPED, Ending.NOT_CHOSEN)
        if standing != (0 if left_out else 1):
            bad.append(MISSING)
    return bad
