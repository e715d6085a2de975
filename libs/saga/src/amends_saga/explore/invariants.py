"""The invariants of a run: they compare its journal with what its participants really did.

Called by `moves` after every move. Each finding names the step whose effect is wrong. Steps that a person decided are
excused, because a person may be wrong.
"""

from amends_saga.engine.events import Call, ParkReason
from amends_saga.engine.state import Done, Phase, RunState, after_pivot_intent
from amends_saga.explore.participants import DISORDER, OTHER_DATA, Broken, Participant
from amends_saga.plan import Kind, Plan

STANDS = "COMPENSATED but an effect stands"
TWICE = "effect twice"
MISSING = "COMPLETED but an effect is missing or doubled"
NOBODYS = "an amendment that nobody chose"
AFTER_AMENDMENT = "an effect behind the pivot after its amendment"
BESIDE = "an amendment beside the effect that it replaces"
MOVES = "called although a person has chosen an amendment"
NEEDLESS = "a person is asked although a machine can undo"


def broken(plan: Plan, disk: RunState, participants: tuple[Participant, ...]) -> list[Broken]:
    """Return the invariants that do not hold."""
    bad: list[Broken] = []
    parked = disk.parked
    if parked is not None and parked.reason is ParkReason.EXPRESSION_FAILED and disk.phase is Phase.RUNNING:
        # Whatever was called before is known; of what could not be built nothing was.
        bad += [] if after_pivot_intent(plan, disk) else [Broken(parked.step or 0, NEEDLESS)]
    bad += _amendments(plan, disk, participants)
    for index, here in enumerate(participants):
        if not here.effects and not here.undone and not disk.ended:
            continue
        if disk.seq == 0:
            bad.append(Broken(index, "effect of a run that a crash would forget"))
        bad += [Broken(index, text) for text in _step(plan, disk, index, here)]
    return bad


def after_skip(
    plan: Plan, disk: RunState, before: tuple[Participant, ...], after: tuple[Participant, ...]
) -> list[Broken]:
    """Return effects that happened although a person was told that they never will, and may have acted on it."""
    bad: list[Broken] = []
    for index, (was, now) in enumerate(zip(before, after, strict=True)):
        step = disk.steps[index]
        acted = now.effects > was.effects and step.done is Done.BY_PERSON
        undone = now.undone > was.undone and step.undone is Done.BY_PERSON
        if plan.steps[index].action.kind is Kind.GUARDED and (acted or undone):
            bad.append(Broken(index, "an effect after a person skipped it"))
    return bad


def after_amendment(
    plan: Plan, disk: RunState, before: tuple[Participant, ...], after: tuple[Participant, ...]
) -> list[Broken]:
    """Return the steps behind the pivot that took effect after what was to run instead of them.

    Whoever chose it has said what became of a plain step that the run was parked at, and of no other.
    """
    wish = disk.amended
    if wish is None or wish.step is None or not any(before[index].effects for index in plan.amendments):
        return []
    first = not plan.steps[wish.step].amendment
    bad = []
    for index, (was, now) in enumerate(zip(before, after, strict=True)):
        step = plan.steps[index]
        if now.effects == was.effects or not step.post or step.amendment:
            continue
        if step.action.kind is Kind.GUARDED or (first and index != wish.step):
            bad.append(Broken(index, AFTER_AMENDMENT))
    return bad


def while_amending(plan: Plan, owner: RunState) -> list[Broken]:
    """Return the actions that are called although a person has chosen something else, which only waits for a void."""
    if owner.amending is None:
        return []
    return [Broken(index, MOVES) for index, step in enumerate(owner.steps) if step.flight is Call.ACTION]


def _amendments(plan: Plan, disk: RunState, participants: tuple[Participant, ...]) -> list[Broken]:
    """Return what is wrong with the amendments that have had their effect."""
    wishes = [wish for wish in (disk.amending, disk.amended) if wish is not None]
    chosen = [wish.amendment for wish in wishes if wish.step is not None and plan.steps[wish.step].post]
    bad = []
    for index in plan.amendments:
        if not participants[index].effects:
            continue
        if index not in chosen and not disk.steps[index].by_person:
            bad.append(Broken(index, NOBODYS))
        for wish in wishes:
            replaced = wish.step if wish.amendment == index else None
            guarded = replaced is not None and plan.steps[replaced].action.kind is Kind.GUARDED
            if replaced is not None and guarded and participants[replaced].effects:
                bad.append(Broken(replaced, BESIDE))
    return bad


def excuse(plan: Plan, disk: RunState, found: list[Broken]) -> tuple[Broken, ...]:
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
    if plan.steps[index].action.kind is Kind.GUARDED:
        return (step.by_person or step.skipping) and text in (STANDS, MISSING, DISORDER)
    if step.by_person:
        return text not in (OTHER_DATA, AFTER_AMENDMENT)
    return step.forced > 0 and text in (TWICE, MISSING)


def _step(plan: Plan, disk: RunState, index: int, here: Participant) -> list[str]:
    kind = plan.steps[index].action.kind
    standing = here.effects - here.undone
    bad = []
    if here.effects > 1 and (kind is not Kind.IDEMPOTENT or standing > 1):
        bad.append(TWICE)
    if here.undone > max(here.effects, 1) or (kind is Kind.GUARDED and here.undone > 1):
        bad.append("undone twice")
    if here.undone > here.effects:
        bad.append("undone more than done")
    if disk.phase is Phase.COMPENSATED and standing > 0:
        bad.append(STANDS)
    if disk.phase is Phase.COMPLETED and kind is not Kind.READ:
        left_out = disk.steps[index].done in (Done.SKIPPED, Done.NOT_CHOSEN)
        if standing != (0 if left_out else 1):
            bad.append(MISSING)
    return bad
