"""Rules about the graph of a saga and the promises of its methods: which methods may stand where.

Each rule is a pure function over the model; called by `checker`.
"""

from collections.abc import Iterator

from amends_resilience.durations import format_duration

from amends_saga import codes
from amends_saga.analysis import Method, Model, StepModel
from amends_saga.cel.environment import RESERVED
from amends_saga.check.rule import Rule
from amends_saga.findings import Finding
from amends_saga.plan import MethodKind

BUILT_IN = frozenset(
    (
        *("bool", "bytes", "double", "int", "uint", "string", "list", "map", "type", "dyn", "null_type"),
        *("optional", "optional_type", "timestamp", "duration"),
    )
)
_AFTER_PIVOT = (MethodKind.GUARDED, MethodKind.KEYED, MethodKind.IDEMPOTENT, MethodKind.READ)
_REPEATABLE = (MethodKind.GUARDED, MethodKind.KEYED, MethodKind.IDEMPOTENT)


def duplicate_step(model: Model) -> Iterator[Finding]:
    """Report step names that are used twice."""
    for step in model.steps:
        if step.name and model.index[step.name] != step.index:
            message = f"A step called `{step.name}` stands above already."
            yield step.step.name_node.finding(codes.DUPLICATE_STEP, message, "Rename one of them.")


def reserved_name(model: Model) -> Iterator[Finding]:
    """Report step names that mean something else: CEL words, types, `input`, `saga` and package roots."""
    packages = {definition.package for definition in model.contracts.definitions.values()}
    roots = {"google", *(package.partition(".")[0] for package in packages)} - {""}
    for step in model.steps:
        name = step.name
        if name in RESERVED:
            what = "a word of CEL"
        elif name in BUILT_IN:
            what = "a built-in name of CEL"
        elif name in ("input", "saga"):
            what = "what expressions call the saga's own values"
        elif name in roots:
            what = "the root of a protobuf package"
        else:
            continue
        message = f"`{name}` is {what} and cannot name a step."
        yield step.step.name_node.finding(codes.RESERVED_NAME, message, "Choose another name.")


def cycle(model: Model) -> Iterator[Finding]:
    """Report steps that wait for themselves, directly or through others."""
    if model.graph.is_acyclic:
        return
    done = set(model.graph.order)
    start = next(step for step in range(len(model.steps)) if step not in done)
    path, at = dict[int, None](), start
    while at not in path:
        path[at] = None
        at = next(before for before in model.graph.after[at] if before not in done)
    ring = list(path)[list(path).index(at) :]
    names = " → ".join(f"`{model.steps[i].name}`" for i in [*ring, at][:12])
    step = model.steps[min(ring)]
    message = f"Steps wait for each other in a circle: {names}{' → …' if len(ring) > 11 else ''}."
    yield step.step.name_node.finding(codes.CYCLE, message, "Take one of them out of the `after` of another.")


def several_pivots(model: Model) -> Iterator[Finding]:
    """Report a second pivot."""
    marked = [step for step in model.steps if step.step.pivot]
    for step in marked[1:]:
        message = f"`{marked[0].name}` is the pivot already."
        node = step.step.pivot_node or step.step.node
        yield node.finding(codes.SEVERAL_PIVOTS, message, "Mark one step: the first that cannot be taken back.")


def beside_pivot(model: Model) -> Iterator[Finding]:
    """Report steps that run beside the pivot."""
    if model.pivot is None or not model.graph.is_acyclic:
        return
    pivot = model.steps[model.pivot]
    for step in model.steps:
        if (
            step.index in (pivot.index, *model.unsure)
            or model.graph.precedes(step.index, pivot.index)
            or model.is_post(step.index)
        ):
            continue
        message = f"`{step.name}` may run at the same time as the pivot `{pivot.name}`."
        hint = _beside_hint(step, pivot)
        yield step.step.name_node.finding(codes.BESIDE_PIVOT, message, hint)


def _beside_hint(step: StepModel, pivot: StepModel) -> str:
    """Return on which side of the pivot a step can be put: what is undone comes before, what has effects after."""
    before = f"`{step.name}` into the `after` of `{pivot.name}`"
    after = f"`{pivot.name}` into the `after` of `{step.name}`"
    if step.step.compensate_node is not None:
        return f"Put {before}."
    return f"Put {after}, or {before}." if step.is_read else f"Put {after}."


def no_compensation(model: Model) -> Iterator[Finding]:
    """Report steps before the pivot that have an effect and no compensation.

    What waits in a circle, or for one, is neither before nor after the pivot.
    """
    ordered = set(model.graph.order)
    for step in model.steps:
        if step.index not in ordered or step.action is None or step.is_read or step.step.compensate_node is not None:
            continue
        if step.index in (model.pivot, *model.unsure) or model.is_post(step.index) or step.step.amendment:
            continue
        if model.pivot is not None and not model.graph.precedes(step.index, model.pivot):
            continue  # it runs beside the pivot, which is a finding of its own
        declared = step.action.facts.compensated_by
        hint = f"Add `compensate` with {step.action.service}/{declared}." if declared else "Add `compensate`"
        if not declared:
            hint += ", or mark the step as the pivot when it cannot be taken back."
        message = f"`{step.name}` has effects and nothing undoes them."
        yield step.step.name_node.finding(codes.NO_COMPENSATION, message, hint)


def post_once(model: Model) -> Iterator[Finding]:
    """After the pivot every step can be repeated, and an amendment has an effect too."""
    for step in model.steps:
        if step.step.amendment and step.is_read and step.action is not None:
            message = f"`{step.name}` is to make good what went wrong, and `{step.action.name}` only reads."
            yield step.step.name_node.finding(codes.POST_ONCE, message, "Call a guarded, KEYED or IDEMPOTENT method.")
        elif model.is_post(step.index) and step.action is not None and step.action.kind not in _AFTER_PIVOT:
            message = f"`{step.name}` comes after the pivot, and `{step.action.name}` cannot be repeated safely."
            hint = "Call a guarded, KEYED or IDEMPOTENT method"
            hint += "." if step.step.amendment else ", or move the step before the pivot."
            yield step.step.name_node.finding(codes.POST_ONCE, message, hint)


def post_compensation(model: Model) -> Iterator[Finding]:
    """Report steps after the pivot that have a compensation."""
    for step in model.steps:
        if model.is_post(step.index) and step.step.compensate_node is not None:
            message = f"`{step.name}` comes after the pivot and is never undone."
            yield step.step.compensate_node.finding(codes.POST_COMPENSATION, message, "Leave `compensate` out.")


def amendment_without_pivot(model: Model) -> Iterator[Finding]:
    """Refuse amendments of a saga that has no pivot, where none could ever be chosen."""
    first = next((step for step in model.steps if step.step.amendment), None)
    if first is not None and model.pivot is None and model.graph.is_acyclic and not model.unsure:
        message = f"`{first.name}` can only be chosen behind the pivot, and the saga has no pivot."
        hint = "Mark the first step that cannot be taken back with `pivot: true`, or leave `afterPivot` out."
        yield first.step.name_node.finding(codes.AMENDMENT_WITHOUT_PIVOT, message, hint)


def pivot_compensation(model: Model) -> Iterator[Finding]:
    """Report a pivot that has a compensation."""
    for step in model.steps:
        if step.step.pivot and step.step.compensate_node is not None:
            message = f"`{step.name}` is the pivot and has a compensation."
            hint = "Leave out `pivot` if it can be undone, `compensate` if not."
            yield step.step.compensate_node.finding(codes.PIVOT_COMPENSATION, message, hint)


def pivot_when(model: Model) -> Iterator[Finding]:
    """Report a pivot that has a condition."""
    for step in model.steps:
        if (step.step.pivot or step.index == model.pivot) and step.step.when is not None:
            by_shape = "" if step.step.pivot else ", for it is the last step and nothing undoes it"
            message = f"`{step.name}` is the pivot{by_shape}, and may be skipped."
            hint = "Leave `when` out, or put the condition on the steps around it."
            if by_shape:
                hint = "Leave `when` out, undo the step with `compensate`, or mark an earlier step as the pivot."
            yield step.step.when.finding(codes.PIVOT_WHEN, message, hint)


def pivot_read(model: Model) -> Iterator[Finding]:
    """Report a pivot without side effects."""
    for step in model.steps:
        if step.step.pivot and step.is_read:
            node = step.step.pivot_node or step.step.node
            message = f"`{step.name}` only reads, and cannot be the point of no return."
            yield node.finding(codes.PIVOT_READ, message, "Mark the step whose effect cannot be taken back.")


def pivot_once(model: Model) -> Iterator[Finding]:
    """Warn that a plain pivot that is not idempotent is attempted once."""
    step = model.steps[model.pivot] if model.pivot is not None else None
    if step is None or codes.PIVOT_ONCE.id in step.step.accept:
        return
    if step.action is not None and step.action.kind is MethodKind.ONCE:
        message = f"`{step.action.name}` is attempted once; if its effect is in doubt, a person must decide."
        hint = "Call a guarded or idempotent method, or write `accept: [AM057]` into the step."
        yield step.step.name_node.finding(codes.PIVOT_ONCE, message, hint)


def compensation_once(model: Model) -> Iterator[Finding]:
    """Report compensations that cannot be repeated, or have no effect."""
    for step, undo in _compensated(model):
        if undo.kind not in _REPEATABLE and step.step.compensate is not None:
            what = "only reads" if undo.kind is MethodKind.READ else "cannot be repeated safely"
            message = f"`{undo.name}` is to undo `{step.name}`, and {what}."
            hint = "Call a guarded or idempotent method, or say in contract or Participant that it is one."
            yield step.step.compensate.node.finding(codes.COMPENSATION_ONCE, message, hint)


def compensation_elsewhere(model: Model) -> Iterator[Finding]:
    """Report compensations of guarded actions that belong to another service."""
    for step, undo in _compensated(model):
        action = step.action
        if action is not None and action.kind is MethodKind.GUARDED and undo.service != action.service:
            assert step.step.compensate is not None
            message = f"`{action.name}` is guarded by {action.service}, `{undo.name}` belongs to {undo.service}."
            hint = f"Compensate with a method of {action.service}."
            yield step.step.compensate.node.finding(codes.COMPENSATION_ELSEWHERE, message, hint)


def pair_not_guarded(model: Model) -> Iterator[Finding]:
    """Report pairs of action and compensation of which only one is guarded."""
    for step, undo in _compensated(model):
        action = step.action
        if action is None or undo.service != action.service or undo.kind not in _REPEATABLE:
            continue
        if (action.kind is MethodKind.GUARDED) != (
            undo.kind is MethodKind.GUARDED
        ) and action.kind is not MethodKind.READ:
            assert step.step.compensate is not None
            guarded, other = (action, undo) if action.kind is MethodKind.GUARDED else (undo, action)
            message = f"`{guarded.name}` is guarded and `{other.name}` is not."
            hint = "Guard both, in one barrier table, or neither."
            yield step.step.compensate.node.finding(codes.PAIR_NOT_GUARDED, message, hint)


def undo_disagrees(model: Model) -> Iterator[Finding]:
    """Report compensations that contradict the contract."""
    for step in model.steps:
        declared = step.action.facts.compensated_by if step.action is not None else ""
        if step.action is None or not declared:
            continue
        call = step.step.compensate
        if call is not None and (call.service, call.method) != (step.action.service, declared):
            message = f"The contract says that `{step.action.name}` is undone by `{declared}`, not by `{call.method}`."
            hint = f"Write {step.action.service}/{declared}."
            yield call.node.finding(codes.UNDO_DISAGREES, message, hint)
        elif step.step.compensate_node is None and step.index == model.pivot and not step.step.pivot:
            message = f"`{declared}` can undo `{step.action.name}`, but as the last step it counts as the pivot."
            hint = f"Add `compensate` with {step.action.service}/{declared}, or mark the step `pivot: true`."
            yield step.step.name_node.finding(codes.UNDO_DISAGREES, message, hint)


def read_compensated(model: Model) -> Iterator[Finding]:
    """Report reads that have a compensation."""
    for step in model.steps:
        if step.is_read and step.step.compensate_node is not None:
            message = f"`{step.name}` only reads and has a compensation."
            yield step.step.compensate_node.finding(codes.READ_COMPENSATED, message, "Leave `compensate` out.")


_LIMITS = {
    MethodKind.KEYED: "has one effect while its keys are remembered{window}",
    MethodKind.IDEMPOTENT: "has one effect while that effect stands",
    MethodKind.ONCE: "is attempted once",
}


def plain_step(model: Model) -> Iterator[Finding]:
    """Warn for each plain step what it cannot promise."""
    for step in model.steps:
        action = step.action
        if action is None or not action.kind.plain or codes.PLAIN_STEP.id in step.step.accept:
            continue
        if step.index == model.pivot and action.kind is MethodKind.ONCE:
            continue
        window = f", for {_days(action)}" if action.facts.window is not None else ""
        limit = _LIMITS[action.kind].format(window=window)
        late, doubtful = "a late copy of its call is not refused", "if its effect is in doubt, a person must decide"
        doubt = late if model.is_post(step.index) else doubtful
        message = f"`{step.name}` is plain: `{action.name}` {limit}; {doubt}."
        hint = "Guard the method, or write `accept: [AM058]` into the step."
        yield step.step.name_node.finding(codes.PLAIN_STEP, message, hint)


def _days(action: Method) -> str:
    assert action.facts.window is not None
    return format_duration(action.facts.window)


def _compensated(model: Model) -> Iterator[tuple[StepModel, Method]]:
    for step in model.steps:
        if step.compensation is not None:
            yield step, step.compensation


RULES: tuple[Rule, ...] = (
    duplicate_step,
    reserved_name,
    cycle,
    several_pivots,
    beside_pivot,
    no_compensation,
    post_once,
    post_compensation,
    amendment_without_pivot,
    pivot_compensation,
    pivot_when,
    pivot_read,
    pivot_once,
    compensation_once,
    compensation_elsewhere,
    pair_not_guarded,
    undo_disagrees,
    read_compensated,
    plain_step,
)
