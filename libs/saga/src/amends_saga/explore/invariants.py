"""The invariants of a run, over what its journal says and what its participants really did.

Called by `moves` after every move. Each finding names the step whose effect is at fault: steps that a person decided
are excused, for a person may be wrong.
"""

from amends_saga.engine.state import Done, Phase, RunState
from amends_saga.explore.participants import Broken, Participant
from amends_saga.plan import Kind, Plan


def broken(plan: Plan, disk: RunState, participants: tuple[Participant, ...]) -> list[Broken]:
    """Return the invariants that do not hold."""
    bad: list[Broken] = []
    for index, here in enumerate(participants):
        if not here.effects and not here.undone and not disk.ended:
            continue
        if disk.seq == 0:
            bad.append(Broken(index, "effect of a run that a crash would forget"))
        bad += [Broken(index, text) for text in _step(plan, disk, index, here)]
    return bad


def excuse(disk: RunState, found: list[Broken]) -> tuple[str, ...]:
    """Return the texts of what remains when the steps that a person decided are left out, each text once."""
    return tuple(dict.fromkeys(text for step, text in found if not _person_decided(disk, step)))


def _person_decided(disk: RunState, index: int) -> bool:
    step = disk.steps[index]
    return step.by_person or step.forced > 0 or step.skipping


def _step(plan: Plan, disk: RunState, index: int, here: Participant) -> list[str]:
    kind = plan.steps[index].action.kind
    standing = here.effects - here.undone
    bad = []
    if here.effects > 1 and (kind is not Kind.IDEMPOTENT or standing > 1):
        bad.append("effect twice")
    if here.undone > max(here.effects, 1) or (kind is Kind.GUARDED and here.undone > 1):
        bad.append("undone twice")
    if here.undone > here.effects:
        bad.append("undone more than done")
    if disk.phase is Phase.COMPENSATED and standing > 0:
        bad.append("COMPENSATED but an effect stands")
    if disk.phase is Phase.COMPLETED and kind is not Kind.READ:
        left_out = disk.steps[index].done is Done.SKIPPED
        if standing != (0 if left_out else 1):
            bad.append("COMPLETED but an effect is missing or doubled")
    return bad
