"""Lists what a person must give with each decision about a parked run, so that nobody has to guess.

Asks the rule that judges decisions, and has no rules of its own. Called by the API, which shows the list to people.
"""

from collections.abc import Iterator
from typing import NamedTuple

from amends_saga.engine.events import Effect, ResolutionAction, Resolved
from amends_saga.engine.resolve import amendments, check_resolution, resolutions
from amends_saga.engine.state import RunState
from amends_saga.plan import Plan


class Choice(NamedTuple):
    """A decision that will be accepted, with the least that it needs."""

    action: ResolutionAction
    effect: Effect | None
    """What has to be said of the call; None when nothing has to be said."""
    result: bool
    """Whether the response that later steps shall see has to be given."""
    amendment: int | None = None
    """The step to run instead, for AMEND."""


def choices(plan: Plan, state: RunState) -> tuple[Choice, ...]:
    """Return each way to decide about a parked run; none when it is not parked."""
    return tuple(
        choice
        for action in resolutions(plan, state)
        for amendment in (amendments(plan, state) if action is ResolutionAction.AMEND else (None,))
        for choice in _ways(plan, state, action, amendment)
    )


def _ways(plan: Plan, state: RunState, action: ResolutionAction, amendment: int | None) -> Iterator[Choice]:
    silent = _accepted(plan, state, action, None, amendment)
    if silent is not None:
        yield silent
        return
    for effect in Effect:
        said = _accepted(plan, state, action, effect, amendment)
        if said is not None:
            yield said


def _accepted(
    plan: Plan, state: RunState, action: ResolutionAction, effect: Effect | None, amendment: int | None
) -> Choice | None:
    parked = state.parked
    if parked is None:
        return None
    for result in (None, b""):
        decision = Resolved(action, parked.step, parked.call, "", "", effect, result, amendment=amendment)
        if check_resolution(plan, state, decision) is None:
            return Choice(action, effect, result is not None, amendment)
    return None
