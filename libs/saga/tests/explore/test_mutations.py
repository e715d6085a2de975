"""Every rule is needed, and the explorer sees it missing: one rule is broken at a time, in the engine's own source."""

from dataclasses import dataclass, replace

import pytest
from amends_saga.explore import Bounds, explore
from amends_saga.explore.moves import Rules
from amends_saga.explore.participants import BarrierRules
from amends_saga.plan import Plan
from amends_testkit.engine.mutants import mutant
from amends_testkit.engine.shapes import shape

FORGOTTEN = "effect of a run that a crash would forget"
STANDS = "COMPENSATED but an effect stands"
MISSING = "COMPLETED but an effect is missing or doubled"
TWICE = "effect twice"
DISORDER = "compensation out of order"
AFTER_PIVOT = "compensated although the pivot took effect"
STUCK = "the run waits for something that never comes"
NEEDLESS = "a person is asked although a machine can undo"
REUSED = "KEY_REUSED although nobody reused a key"
OTHER_DATA = "compensation built from other data than its action"
AFTER_SKIP = "an effect after a person skipped it"
NOBODYS = "an amendment that nobody chose"
AFTER_AMENDMENT = "an effect behind the pivot after its amendment"
BESIDE = "an amendment beside the effect that it replaces"
MOVES = "called although a person has chosen an amendment"
QUIET = Bounds(owners=1, crashes=0, resolutions=0, late=False, duplicates=False, deadline=False)
TWO_OWNERS = Bounds(resolutions=0, duplicates=False, deadline=False)
LATE = Bounds(owners=1, crashes=0, resolutions=0, deadline=False)
NO_DUPLICATES = Bounds(owners=1, crashes=0, resolutions=0, duplicates=False, deadline=False)
SMALL = replace(TWO_OWNERS, attempts=1, crashes=1, rejections=False, compensation_rejections=False)
AMENDS = Bounds(owners=1, crashes=0, duplicates=False, deadline=False)
READ_FIRST = shape("r>g>g", uses={"b": "a"})


@dataclass(frozen=True)
class Mutation:
    name: str
    module: str
    old: str
    new: str
    plan: Plan
    bounds: Bounds
    found: frozenset[str]


def of(name: str, module: str, old: str, new: str, plan: Plan | str, bounds: Bounds, *found: str) -> Mutation:
    plan = shape(plan) if isinstance(plan, str) else plan
    return Mutation(name, module, old, new, plan, bounds, frozenset(found))


MUTATIONS = [
    of("start not awaited", "forward", "if durable < 1:", "if False:", "g", QUIET, FORGOTTEN),
    of(
        "intent of the pivot not awaited",
        "forward",
        "if step.intent_seq > state.durable:",
        "if step.intent_seq > state.durable and step_plan.action.kind.plain:",
        "g>P",
        TWO_OWNERS,
        AFTER_PIVOT,
        STANDS,
    ),
    of(
        "intent of the pivot not written",
        "forward",
        "if not step_plan.pivot and not step_plan.action.kind.plain:",
        "if not step_plan.action.kind.plain:",
        "g>P",
        Bounds(resolutions=0, duplicates=False),
        AFTER_PIVOT,
        STANDS,
    ),
    of(
        "decision not awaited",
        "backward",
        "if state.decided is None or state.durable < state.decided_seq:",
        "if state.decided is None:",
        "g>g",
        TWO_OWNERS,
        MISSING,
        TWICE,
        DISORDER,
    ),
    of(
        "after a takeover only what is known is undone",
        "forward",
        "if not state.successor:",
        "if True:",
        "g>g",
        TWO_OWNERS,
        STANDS,
        DISORDER,
    ),
    of(
        "only the last owner was unseen",
        "ledger",
        "unseen = ledger.unseen or not _handed_over(ledger, fence)",
        "unseen = not _handed_over(ledger, fence)",
        "g>g",
        replace(SMALL, owners=3, releases=True, deadline=True),
        STANDS,
        DISORDER,
    ),
    of(
        "rejected step not voided",
        "forward",
        "return rules.attempted(step)",
        "return rules.attempted(step) and step.done is not Ending.REJECTED",
        "g>g",
        LATE,
        STANDS,
        DISORDER,
    ),
    of(
        "rejected pivot compensates at once",
        "forward",
        "clean = pivot.done is Ending.REJECTED and not pivot.in_doubt and kind.plain",
        "clean = pivot.done is Ending.REJECTED",
        "g>P",
        NO_DUPLICATES,
        AFTER_PIVOT,
        STANDS,
    ),
    of(
        "rejected pivot compensates when it was the only attempt",
        "forward",
        "clean = pivot.done is Ending.REJECTED and not pivot.in_doubt and kind.plain",
        "clean = pivot.done is Ending.REJECTED and not pivot.in_doubt",
        "g>P",
        LATE,
        AFTER_PIVOT,
        STANDS,
    ),
    of(
        "doubt of a plain pivot not journaled",
        "answers",
        "in_doubt=fenced or step.in_doubt or step.attempts > 0)",
        "in_doubt=False)",
        "g>K",
        NO_DUPLICATES,
        AFTER_PIVOT,
        STANDS,
    ),
    of(
        "plain step in flight not awaited",
        "forward",
        "if any(state.steps[i].flight is Operation.ACTION or state.steps[i].admitting for i in plain):",
        "if any(state.steps[i].admitting for i in plain):",
        "k|g",
        NO_DUPLICATES,
        STANDS,
    ),
    of(
        "plain step in doubt is undone by machine",
        "forward",
        "if doubtful is not None:",
        "if False:",
        "i>g",
        NO_DUPLICATES,
        STANDS,
        "action effect after its compensation",
    ),
    of(
        "doubt not journaled",
        "answers",
        "in_doubt=fenced or step.in_doubt or step.attempts > 0)",
        "in_doubt=False)",
        "i>g",
        NO_DUPLICATES,
        STANDS,
        "action effect after its compensation",
    ),
    of(
        "in_doubt dropped when the journal is read",
        "evolve",
        '"in_doubt": event.in_doubt}',
        '"in_doubt": False}',
        "i>g",
        NO_DUPLICATES,
        STANDS,
        "action effect after its compensation",
    ),
    of(
        "open intent of a predecessor not doubted",
        "ledger",
        "step._replace(in_doubt=True,",
        "step._replace(",
        "i>g",
        TWO_OWNERS,
        STANDS,
        "action effect after its compensation",
    ),
    of(
        "once is tried again by the same owner",
        "answers",
        "once = plan.steps[index].action.kind is MethodKind.ONCE",
        "once = False",
        "o>g",
        NO_DUPLICATES,
        TWICE,
    ),
    of(
        "once is tried again by the next owner",
        "ledger",
        "inherited=step.intent_seq > step.forced_seq)",
        "inherited=False)",
        "o>g",
        TWO_OWNERS,
        TWICE,
    ),
    of(
        "intent of a plain step not written",
        "forward",
        "if not step_plan.pivot and not step_plan.action.kind.plain:",
        "if not step_plan.pivot:",
        "o>g",
        TWO_OWNERS,
        TWICE,
        STANDS,
    ),
    of(
        "a read used before it is durable",
        "forward",
        "if steps[used].answered_seq > durable:",
        "if False:",
        READ_FIRST,
        SMALL,
        REUSED,
        OTHER_DATA,
    ),
    of(
        "compensations in forward order",
        "backward",
        "if any(later in plan.descendants[index] and not",
        "if any(later in plan.ancestors[index] and not",
        "g>g",
        QUIET,
        DISORDER,
    ),
    of(
        "compensations all at once",
        "backward",
        "if any(later in plan.descendants[index] and not",
        "if any(False and not",
        "g>g",
        QUIET,
        DISORDER,
    ),
    of(
        "skip without void",
        "evolve",
        "return step._replace(undone=None, skipping=True, error=None)",
        "return step._replace(undone=Ending.BY_PERSON, by_person=True, error=None)",
        "g",
        Bounds(owners=1, crashes=0, deadline=False),
        AFTER_SKIP,
    ),
    of(
        "skip of an action without void",
        "evolve",
        "step = step._replace(skipping=True, assumed=event.result)",
        "step = step._replace(done=Ending.BY_PERSON, by_person=True, response=event.result)",
        "P>g",
        Bounds(owners=1, crashes=0, deadline=False),
        AFTER_SKIP,
    ),
    of(
        "parked while calls are under way",
        "rules",
        "return [] if busy(state) else [parked]",
        "return [parked]",
        "g|g",
        replace(SMALL, attempts=2, owners=1, resolutions=1, parks=True),
        STANDS,
    ),
    of(
        "let go while calls are under way",
        "rules",
        "if busy(state) or state.released == state.seq:",
        "if state.released == state.seq:",
        "g",
        replace(SMALL, releases=True, deadline=True),
        STANDS,
    ),
    of(
        "deadline after the intent of the pivot",
        "forward",
        "if after_pivot_intent(plan, state):\n        return _undo_at_pivot(plan, state)",
        "if False:\n        return _undo_at_pivot(plan, state)",
        "g>P",
        Bounds(owners=1, crashes=0, resolutions=0),
        AFTER_PIVOT,
    ),
    of(
        "compensation that needs its own response sent in doubt",
        "backward",
        "if guarded and compensation is not None and compensation.uses_self and step.done is not Ending.OK:",
        "if False:",
        shape("g>g", uses_self="a"),
        NO_DUPLICATES,
        OTHER_DATA,
    ),
    *(
        of(
            f"a person need not say what was answered ({kind})",
            "resolve",
            "return decision.effect is Effect.HAPPENED and _plain(plan, decision, index) and own is not None"
            " and own.uses_self",
            "return False",
            shape(f"{kind}>g", uses_self="a"),
            replace(NO_DUPLICATES, attempts=1, resolutions=1, compensation_rejections=False),
            OTHER_DATA,
        )
        for kind in "kio"
    ),
    of(
        "what a predecessor let go of counts as let go of by this owner",
        "ledger",
        "successor=unseen, released=0, steps=steps)",
        "successor=unseen, steps=steps)",
        "g",
        replace(SMALL, owners=3, crashes=0, releases=True, holds=True),
        STUCK,
    ),
    *(
        of(
            f"a pivot that cannot be built asks a person ({kind})",
            "forward",
            "(step_plan.post or (step_plan.pivot and step.intent_seq > 0))",
            "(step_plan.post or step_plan.pivot)",
            f"g>{kind}",
            replace(QUIET, failures=True),
            NEEDLESS,
        )
        for kind in "PKIO"
    ),
    of(
        "a person who retries is taken to know that nothing happened",
        "evolve",
        "doubt = step.in_doubt or step.attempts > 0",
        "doubt = False",
        "k>g",
        replace(NO_DUPLICATES, resolutions=1, compensation_rejections=False),
        STANDS,
    ),
    of(
        "a step that uses one that was left out is not suspected of a call that nobody saw",
        "forward",
        "and all(finished(steps[u]) for u in step_plan.uses)",
        "and all(steps[u].done is Ending.OK for u in step_plan.uses)",
        shape("g>g>g", uses={"c": "b"}, when="b"),
        replace(SMALL, deadline=True),
        STANDS,
        DISORDER,
    ),
    of(
        "an amendment begins before the step that it replaces is void",
        "evolve",
        "return state._replace(amending=event)",
        "return _amended(plan, state, seq, event)",
        "P>g/g",
        AMENDS,
        BESIDE,
    ),
    of(
        "an amendment begins although the step that it replaces has succeeded",
        "evolve",
        "if event.outcome is Outcome.OK:\n        return state._replace(amending=None)",
        "if event.outcome is Outcome.OK:\n        return _amended(plan, state, seq, decision)",
        "P>g/g",
        AMENDS,
        BESIDE,
    ),
    of(
        "an amendment begins without a void",
        "evolve",
        "elif kind is MethodKind.GUARDED and given_up:",
        "elif kind is MethodKind.GUARDED and event.action is ResolutionAction.AMEND:\n"
        "        left = change(state, event.step, done=Ending.BY_PERSON, by_person=True)\n"
        "        return _amended(plan, left, entry.seq, event)\n"
        "    elif kind is MethodKind.GUARDED and given_up:",
        "P>g/g",
        AMENDS,
        BESIDE,
        AFTER_AMENDMENT,
        AFTER_SKIP,
    ),
    of(
        "what has not ended beside it is left without a void",
        "evolve",
        "elif plan.steps[index].action.kind is MethodKind.GUARDED:\n            quiet",
        "elif False:\n            quiet",
        "P>g|g/g",
        AMENDS,
        AFTER_AMENDMENT,
        AFTER_SKIP,
    ),
    of(
        "other steps go on while the void is awaited",
        "forward",
        "if state.amending is not None:",
        "if False:",
        "P>g|g/g",
        replace(AMENDS, late=False),
        MOVES,
    ),
    of(
        "an amendment is offered while a plain step beside it is in doubt",
        "resolve",
        "if index != parked.step and plan.steps[index].post and _plain_in_doubt(plan, step, index):",
        "if False:",
        "P>k|g/g",
        AMENDS,
        AFTER_AMENDMENT,
    ),
    of(
        "every amendment begins when one is chosen",
        "evolve",
        "if index == decision.amendment:",
        "if plan.steps[index].amendment:",
        "P>g/gg",
        replace(AMENDS, late=False),
        NOBODYS,
    ),
    of(
        "an amendment is offered before the pivot",
        "resolve",
        "if parked is None or parked.step is None or not plan.steps[parked.step].post:",
        "if parked is None or parked.step is None:",
        "k>P/g",
        replace(AMENDS, rejections=False),
        NOBODYS,
    ),
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_broken_rule_of_the_engine_is_found(mutation: Mutation) -> None:
    with mutant(mutation.module, mutation.old, mutation.new) as engine:
        result = explore(mutation.plan, mutation.bounds, engine=engine, first_only=True)
    assert {violation.text for violation in result.violations} & mutation.found


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_with_the_rule_in_place_the_same_exploration_holds(mutation: Mutation) -> None:
    assert explore(mutation.plan, mutation.bounds).holds


BROKEN_WORLDS = [
    ("lease without a fence", "g>P", Rules(fence=False), TWO_OWNERS, {AFTER_PIVOT, STANDS}),
    (
        "barrier without the record of a void",
        "g",
        Rules(barrier=BarrierRules(void_record=False)),
        LATE,
        {STANDS, "action effect after its compensation"},
    ),
    (
        "barrier that lets an action follow its compensation",
        "g",
        Rules(barrier=BarrierRules(fences=False)),
        LATE,
        {STANDS, TWICE, "action effect after its compensation"},
    ),
    (
        "barrier that does not return what it stored",
        "g",
        Rules(barrier=BarrierRules(returns_stored=False)),
        LATE,
        {TWICE},
    ),
    (
        "barrier that is silent when it has forgotten an action",
        "g>g",
        Rules(forgets=True, barrier=BarrierRules(refuses_unknown=False)),
        replace(QUIET, unanswered=False),
        {STANDS},
    ),
]


@pytest.mark.parametrize(
    ("name", "text", "rules", "bounds", "found"), BROKEN_WORLDS, ids=[world[0] for world in BROKEN_WORLDS]
)
def test_a_broken_promise_of_the_world_is_found(
    name: str, text: str, rules: Rules, bounds: Bounds, found: set[str]
) -> None:
    result = explore(shape(text), bounds, rules=rules, first_only=True)
    assert {violation.text for violation in result.violations} & found, name


def test_a_barrier_that_forgets_is_survived_when_the_run_says_what_it_knows() -> None:
    assert explore(shape("g>g"), replace(QUIET, unanswered=False), rules=Rules(forgets=True)).holds


def test_nothing_replaces_a_forgotten_row_when_the_answer_was_lost() -> None:
    result = explore(shape("g"), replace(QUIET, attempts=2), rules=Rules(forgets=True), first_only=True)
    assert [violation.text for violation in result.violations] == [TWICE]
