"""The figures of a saga: how long it can take, how often its methods can be called, what its input must hold.

Called by `checker`, by the rules about time, and by the renderers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from amends_resilience import Conflict, NamedPolicy, match

from amends_saga.analysis import Method, Model

ZERO = timedelta(0)


@dataclass(frozen=True, slots=True)
class StepFigures:
    """One step."""

    name: str
    method: str
    kind: str
    position: str
    """`before`, `pivot` or `after`."""
    attempts: int | None
    """None when the policy is in conflict, or the method could not be resolved."""
    timeout: timedelta | None
    worst_case: timedelta | None
    """All attempts to their timeout, all pauses to their ceiling."""
    compensation: str
    compensation_kind: str
    amplification: tuple[int, ...]
    """Attempts at each layer below and including ours; their product is how often the lowest may be called."""


@dataclass(frozen=True, slots=True)
class SagaFigures:
    """One saga."""

    namespace: str
    saga: str
    steps: tuple[StepFigures, ...]
    deadline: timedelta | None
    worst_case: timedelta
    """Along the longest path of the part that can still be undone; unresolved steps count as nothing."""
    worst_path: tuple[str, ...]
    whole_worst_case: timedelta
    """Along the longest path of all steps, were those after the pivot tried no more often than their policy says."""
    required_input: tuple[str, ...]


def figures_of(model: Model, required: Sequence[str]) -> SagaFigures:
    """Return the figures of a saga."""
    worst, path = longest_path(model, undoable_only=True)
    whole, _ = longest_path(model, undoable_only=False)
    named = [policy.named() for policy in model.policies]
    calls = {view.participant.service: tuple(n for n, _ in view.participant.calls) for view in model.participants}
    steps = []
    for step in model.steps:
        action, undo = step.action, step.compensation
        policy = action.policy if action is not None else None
        call = step.step.call
        position = "pivot" if step.index == model.pivot else "after" if model.is_post(step.index) else "before"
        steps.append(
            StepFigures(
                name=step.name,
                method=f"{call.service}/{call.method}" if call is not None else "",
                kind=action.kind.value if action is not None else "",
                position=position,
                attempts=attempts_of(action) if action is not None else None,
                timeout=policy.timeout if policy is not None else None,
                worst_case=worst_case_of(action) if policy is not None else None,
                compensation=undo.full_name if undo is not None else "",
                compensation_kind=undo.kind.value if undo is not None else "",
                amplification=layers(action, named, calls) if action is not None else (),
            )
        )
    saga = model.saga
    return SagaFigures(
        namespace=saga.metadata.namespace,
        saga=saga.metadata.name,
        steps=tuple(steps),
        deadline=saga.deadline,
        worst_case=worst,
        worst_path=path,
        whole_worst_case=whole,
        required_input=tuple(sorted(set(required))),
    )


def attempts_of(method: Method) -> int | None:
    """Return how often a method is attempted at most before the pivot: once if nothing makes repeating it safe."""
    from amends_saga.plan import Kind

    if method.policy is None:
        return None
    return 1 if method.kind is Kind.ONCE else method.policy.attempts


def worst_case_of(method: Method | None) -> timedelta:
    """Return how long a call can take at most; zero when that is not known."""
    if method is None or method.policy is None:
        return ZERO
    return method.policy.timeout if attempts_of(method) == 1 else method.policy.worst_case()


def longest_path(model: Model, *, undoable_only: bool) -> tuple[timedelta, tuple[str, ...]]:
    """Return the longest time along the graph and the steps on that path.

    With `undoable_only` it ends where the pivot's intent is written: the deadline holds no further.
    """
    if not model.graph.is_acyclic:
        return ZERO, ()
    total: dict[int, timedelta] = {}
    times = {id(step.action): worst_case_of(step.action) for step in {id(s.action): s for s in model.steps}.values()}
    via: dict[int, int | None] = {}
    for index in model.graph.order:
        if undoable_only and (index == model.pivot or model.is_post(index)):
            continue
        before = [step for step in model.graph.after[index] if step in total]
        longest = max(before, key=lambda step: total[step], default=None)
        via[index] = longest
        total[index] = (total[longest] if longest is not None else ZERO) + times[id(model.steps[index].action)]
    if not total:
        return ZERO, ()
    at: int | None = max(total, key=lambda step: total[step])
    assert at is not None
    time, path = total[at], list[str]()
    while at is not None:
        path.append(model.steps[at].name)
        at = via[at]
    return time, tuple(reversed(path))


def layers(method: Method, policies: Sequence[NamedPolicy], calls: Mapping[str, Sequence[str]]) -> tuple[int, ...]:
    """Return the attempts at each layer: ours, then along the worst chain of services that the participant calls."""
    own = attempts_of(method)
    return (own if own is not None else 1, *_below(method.service, policies, calls, frozenset({method.service})))


def _below(
    service: str, policies: Sequence[NamedPolicy], calls: Mapping[str, Sequence[str]], seen: frozenset[str]
) -> tuple[int, ...]:
    worst: tuple[int, ...] = ()
    for called in calls.get(service, ()):
        if called in seen or len(seen) > 8:
            continue
        policy = match(policies, called, "*")
        attempts = 1 if isinstance(policy, Conflict) else policy.attempts
        found = (attempts, *_below(called, policies, calls, seen | {called}))
        if product(found) > product(worst):
            worst = found
    return worst


def product(numbers: Sequence[int]) -> int:
    """Return the product of the attempts of all layers."""
    result = 1
    for number in numbers:
        result *= number
    return result
