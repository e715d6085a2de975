"""The rules for a person's decisions about a parked run.

Called by the API before a decision is recorded, and to tell people which decisions are possible.
"""

from typing import NamedTuple

from amends_saga.engine.events import STEP_FENCED, Effect, Operation, ParkReason, ResolutionAction, Resolved
from amends_saga.engine.state import Ending, Phase, RunState, StepRun, after_pivot_intent, finished
from amends_saga.plan import Plan

NOT_ALLOWED = "RESOLUTION_NOT_ALLOWED"
EFFECT_REQUIRED = "EFFECT_REQUIRED"


class DecisionRefusal(NamedTuple):
    """Why a decision cannot be taken: a reason for programs, and words for people."""

    reason: str
    message: str


def resolutions(plan: Plan, state: RunState) -> tuple[ResolutionAction, ...]:
    """Return the possible decisions: none unless the run is parked."""
    if state.parked is None:
        return ()
    open_ = [ResolutionAction.RETRY] if _may_retry(state) else []
    if state.parked.step is not None:
        open_.append(ResolutionAction.SKIP)
    if state.phase is Phase.RUNNING and _may_compensate(plan, state):
        open_.append(ResolutionAction.COMPENSATE)
    if amendments(plan, state):
        open_.append(ResolutionAction.AMEND)
    return tuple(open_)


def amendments(plan: Plan, state: RunState) -> tuple[int, ...]:
    """Return the amendments that a person may choose instead of the steps after the pivot that have not ended.

    None while another plain step there may have had its effect: nobody has said what became of it.
    """
    parked = state.parked
    if parked is None or parked.step is None or not plan.steps[parked.step].post:
        return ()
    for index, step in enumerate(state.steps):
        if index != parked.step and plan.steps[index].post and _plain_in_doubt(plan, step, index):
            return ()
    return tuple(index for index in plan.amendments if state.steps[index].done is Ending.NOT_CHOSEN)


def _plain_in_doubt(plan: Plan, step: StepRun, index: int) -> bool:
    if not plan.steps[index].action.kind.plain or finished(step):
        return False
    return step.intent_seq > 0 and (step.done is None or step.in_doubt)


def check_resolution(plan: Plan, state: RunState, decision: Resolved) -> DecisionRefusal | None:
    """Return why a decision cannot be taken; None when it can."""
    parked = state.parked
    if parked is None:
        return DecisionRefusal(NOT_ALLOWED, "the run is not parked")
    allowed = resolutions(plan, state)
    if decision.action not in allowed:
        return DecisionRefusal(NOT_ALLOWED, f"{decision.action} is not possible here, only {', '.join(allowed)}")
    if decision.step != parked.step or decision.call is not parked.call:
        return DecisionRefusal(NOT_ALLOWED, "the run is parked at another step or call")
    if parked.step is None:
        return None
    return _incomplete(plan, state, decision, parked.step)


def _incomplete(plan: Plan, state: RunState, decision: Resolved, index: int) -> DecisionRefusal | None:
    """Return what the decision about a step does not say and must; None when it says enough."""
    if decision.action is ResolutionAction.AMEND and decision.amendment not in amendments(plan, state):
        names = ", ".join(plan.steps[amendment].name for amendment in amendments(plan, state))
        return DecisionRefusal("AMENDMENT_UNKNOWN", f"say which amendment: {names}")
    if _effect_missing(plan, state, decision, index):
        message = "the method is plain, so say whether its call had its effect: --effect=happened or --effect=none"
        return DecisionRefusal(EFFECT_REQUIRED, message)
    if _effect_refused(plan, state, decision, index):
        message = "a plain pivot can only be compensated when its call had no effect: --effect=none"
        return DecisionRefusal(EFFECT_REQUIRED, message)
    if not _result_missing(plan, state, decision, index):
        return None
    name = plan.steps[index].name
    message = f"later steps use the response of {name}, so say what to assume"
    if decision.action is ResolutionAction.COMPENSATE:
        message = f"the compensation of {name} uses its response, so say what it answered"
    return DecisionRefusal("RESULT_REQUIRED", message)


def _may_retry(state: RunState) -> bool:
    parked = state.parked
    if parked is None or parked.step is None:
        return True
    step = state.steps[parked.step]
    if parked.call is Operation.ACTION:
        # A voided key can never act again; a step that is done needs no other call.
        return step.done not in (Ending.OK, Ending.VOIDED) and step.reason != STEP_FENCED
    return True


def _may_compensate(plan: Plan, state: RunState) -> bool:
    if not after_pivot_intent(plan, state):
        return True
    return not finished(state.steps[plan.pivot or 0])


def _plain(plan: Plan, decision: Resolved, index: int) -> bool:
    step_plan = plan.steps[index]
    backwards = decision.call in (Operation.COMPENSATION, Operation.VOID_COMPENSATION)
    call = step_plan.compensation if backwards and step_plan.compensation else step_plan.action
    return call.kind.plain


def _effect_missing(plan: Plan, state: RunState, decision: Resolved, index: int) -> bool:
    if decision.effect is not None or not _plain(plan, decision, index):
        return False
    doubtful = state.parked is not None and state.parked.reason is ParkReason.PLAIN_IN_DOUBT
    at_pivot = plan.steps[index].pivot and state.steps[index].intent_seq > 0
    return decision.action in (ResolutionAction.SKIP, ResolutionAction.AMEND) or (
        decision.action is ResolutionAction.COMPENSATE and (doubtful or at_pivot)
    )


def _effect_refused(plan: Plan, state: RunState, decision: Resolved, index: int) -> bool:
    if (
        decision.action is not ResolutionAction.COMPENSATE
        or not plan.steps[index].pivot
        or not _plain(plan, decision, index)
    ):
        return False
    return decision.effect is Effect.HAPPENED or (
        state.steps[index].intent_seq > 0 and decision.effect is not Effect.NONE
    )


def _result_missing(plan: Plan, state: RunState, decision: Resolved, index: int) -> bool:
    """Return whether an expression needs a response that neither the journal nor the person gives."""
    known = decision.result is not None or state.steps[index].response is not None
    if decision.action in (ResolutionAction.RETRY, ResolutionAction.AMEND) or known or state.phase is not Phase.RUNNING:
        return False
    if decision.action is ResolutionAction.SKIP and any(index in later.uses for later in plan.steps):
        return True
    own = plan.steps[index].compensation
    return decision.effect is Effect.HAPPENED and _plain(plan, decision, index) and own is not None and own.uses_self
