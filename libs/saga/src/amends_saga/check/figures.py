"""The figures of a saga: its longest time, the number of calls, and the required fields of its input.

Called by `checker`, by the rules about time, and by the renderers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from weakref import WeakKeyDictionary

from amends_resilience import PolicyConflict, match

from amends_saga.analysis import Method, Model

ZERO = timedelta(0)
DEEPEST = 9
"""Services in a chain of retries, ours included."""
CHAINS = 2_000


@dataclass(frozen=True, slots=True)
class StepFigures:
    """The figures of one step."""

    name: str
    method: str
    kind: str
    position: str
    """`before`, `pivot`, `after` or `amendment`."""
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
    """The figures of one saga."""

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
    steps = []
    for step in model.steps:
        action, undo = step.action, step.compensation
        policy = action.policy if action is not None else None
        call = step.step.call
        position = (
            "amendment"
            if step.step.amendment
            else "pivot"
            if step.index == model.pivot
            else "after"
            if model.is_post(step.index)
            else "before"
        )
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
                amplification=layers(model, action) if action is not None else (),
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
    """Return how often a method is attempted at most before the pivot: once if repeating it is not safe."""
    from amends_saga.plan import MethodKind

    if method.policy is None:
        return None
    return 1 if method.kind is MethodKind.ONCE else method.policy.attempts


def worst_case_of(method: Method | None) -> timedelta:
    """Return how long a call can take at most; zero when that is not known."""
    if method is None or method.policy is None:
        return ZERO
    return method.policy.timeout if attempts_of(method) == 1 else method.policy.worst_case()


def longest_path(model: Model, *, undoable_only: bool) -> tuple[timedelta, tuple[str, ...]]:
    """Return the longest time along the graph, and the steps on that path.

    With `undoable_only` it ends where the pivot's intent is written: after that the deadline does not apply.
    """
    if not model.graph.is_acyclic:
        return ZERO, ()
    total: dict[int, timedelta] = {}
    times = {id(step.action): worst_case_of(step.action) for step in {id(s.action): s for s in model.steps}.values()}
    via: dict[int, int | None] = {}
    for index in model.graph.order:
        if undoable_only and (index == model.pivot or model.is_post(index)):
            continue
        if model.steps[index].step.amendment:
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


def layers(model: Model, method: Method) -> tuple[int, ...]:
    """Return the attempts at each layer: ours, then along the worst chain of services that the participant calls."""
    found = _LAYERS.get(model)
    if found is None:
        found = _LAYERS[model] = Layers(model)
    own = attempts_of(method)
    return (own if own is not None else 1, *found.below(method.service))


class Layers:
    """The worst chain of services below each service, without repetition.

    Services that all call each other have more chains than can be counted. So the search stops after CHAINS of them and
    keeps the worst one that it has seen. It follows the services with the most retries first.
    """

    def __init__(self, model: Model) -> None:
        self._policies = [policy.named() for policy in model.policies]
        calls = {view.participant.service: [name for name, _ in view.participant.calls] for view in model.participants}
        self._attempts = {name: self._of(name) for called in calls.values() for name in called}
        self._calls = {
            service: sorted(dict.fromkeys(called), key=lambda name: -self._attempts[name])
            for service, called in calls.items()
        }
        self._most = max(self._attempts.values(), default=1)
        self._known: dict[str, tuple[int, ...]] = {}
        self._left = 0

    def below(self, service: str) -> tuple[int, ...]:
        """Return the attempts at each layer below a service."""
        if service not in self._known:
            self._left = CHAINS
            self._known[service] = self._worst((service,))
        return self._known[service]

    def _of(self, service: str) -> int:
        policy = match(self._policies, service, "*")
        return 1 if isinstance(policy, PolicyConflict) else policy.attempts

    def _worst(self, chain: tuple[str, ...]) -> tuple[int, ...]:
        worst: tuple[int, ...] = ()
        room = DEEPEST - len(chain)
        for called in self._calls.get(chain[-1], ()) if room > 0 else ():
            if called in chain:
                continue
            if self._left <= 0 or product(worst) >= self._most**room:
                break
            self._left -= 1
            found = (self._attempts[called], *self._worst((*chain, called)))
            if product(found) > product(worst):
                worst = found
        return worst


def product(numbers: Sequence[int]) -> int:
    """Return the product of the attempts of all layers."""
    result = 1
    for number in numbers:
        result *= number
    return result


_LAYERS: "WeakKeyDictionary[Model, Layers]" = WeakKeyDictionary()
"""The layers of each model: several rules ask for them."""
