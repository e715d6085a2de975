"""Rules about time and retries, computed from the policies that are in force.

Each rule is a pure function over the model; called by `checker`.
"""

from collections.abc import Iterator
from datetime import timedelta

from amends_resilience.durations import format_duration

from amends_saga import codes
from amends_saga.analysis import Model
from amends_saga.check.figures import layers, longest_path, product, worst_case_of
from amends_saga.check.rule import Rule
from amends_saga.findings import Finding, suggestion
from amends_saga.plan import MethodKind

_SHOWN = ("deadline", "stalledAfter")
MARGIN = timedelta(days=1)
"""A run older than the barrier's retention minus this is parked, not called."""


def deadline_too_short(model: Model) -> Iterator[Finding]:
    """Report a deadline that is shorter than the worst case of the part that can still be undone."""
    deadline, node = model.saga.deadline, model.saga.deadline_node
    worst, path = longest_path(model, undoable_only=True)
    if deadline is None or node is None or worst <= deadline:
        return
    steps = " → ".join(path[:8]) + (" → …" if len(path) > 8 else "")
    message = f"The worst case is {format_duration(worst)} along {steps}, the deadline is {format_duration(deadline)}."
    hint = f"Raise the deadline to {format_duration(worst)}, or lower attempts or timeouts of these steps."
    yield node.finding(codes.DEADLINE_TOO_SHORT, message, hint)


def amplification(model: Model) -> Iterator[Finding]:
    """Report retries of several layers that multiply."""
    for step in model.steps:
        if step.action is None or step.step.call is None:
            continue
        found = layers(model, step.action)
        if sum(attempts > 1 for attempts in found) > 1:
            sum_ = f"{' × '.join(str(attempts) for attempts in found)} = {product(found)}"
            message = f"One call of `{step.name}` can become {sum_} calls at the bottom, for every layer retries."
            hint = "Let one layer retry: set `attempts: 1` for the others."
            yield step.step.call.node.finding(codes.AMPLIFICATION, message, hint)


def no_deadline(model: Model) -> Iterator[Finding]:
    """Report a saga whose waiting runs would never show as stalled."""
    if model.saga.deadline is None and model.saga.stalled_after is None:
        node = model.saga.metadata.node.get("spec") or model.saga.metadata.node
        if any(key.value in _SHOWN or suggestion(key.value, _SHOWN) for key, _ in node.pairs):
            return  # it could not be read, and has a finding of its own
        message = "The saga has neither `deadline` nor `stalledAfter`: a run that waits is never reported."
        first = node.pairs[0][0] if node.pairs else node
        yield first.finding(codes.NO_DEADLINE, message, "Add e.g. `deadline: 60s`.")


def window_too_short(model: Model) -> Iterator[Finding]:
    """Report KEYED methods that forget their keys before the last attempt."""
    for step in model.steps:
        for method, call in ((step.action, step.step.call), (step.compensation, step.step.compensate)):
            if method is None or call is None or method.kind is not MethodKind.KEYED or method.facts.window is None:
                continue
            worst = max(worst_case_of(method), model.saga.deadline or timedelta(0))
            if method.facts.window < worst:
                message = (
                    f"`{method.name}` remembers keys for {format_duration(method.facts.window)}, "
                    f"attempts may be {format_duration(worst)} apart."
                )
                yield call.node.finding(
                    codes.WINDOW_TOO_SHORT, message, "Lengthen the window, or shorten the deadline."
                )


def retention_too_short(model: Model) -> Iterator[Finding]:
    """Report barriers that forget their rows while a run may still need them."""
    told = set()
    for step in model.steps:
        method, call = step.action, step.step.call
        if method is None or call is None or method.kind is not MethodKind.GUARDED or method.service in told:
            continue
        retention = method.participant.barrier_retention
        needed = MARGIN + (model.saga.deadline or timedelta(0))
        if retention is not None and retention <= needed:
            told.add(method.service)
            message = (
                f"The barrier of {method.participant.metadata.full_name} remembers for {format_duration(retention)}, "
                f"a run needs more than {format_duration(needed)}."
            )
            yield call.node.finding(
                codes.RETENTION_TOO_SHORT, message, "Raise barrierRetention, in service and Participant."
            )


RULES: tuple[Rule, ...] = (deadline_too_short, amplification, no_deadline, window_too_short, retention_too_short)
