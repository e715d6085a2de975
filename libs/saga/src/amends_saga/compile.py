"""Makes a compiled saga of a model in which `check` has found no error."""

from collections.abc import Mapping, Sequence

from google.protobuf.descriptor_pb2 import FileDescriptorProto

from amends_saga.analysis import ExpressionRole, Method, Model, StepModel
from amends_saga.bundle import Bundle, BundledCall, BundledStep, BundleError
from amends_saga.compiled import CompiledSaga, load_bundle
from amends_saga.descriptors import RUN_MESSAGE, reachable_files
from amends_saga.descriptors.contracts import messages
from amends_saga.descriptors.reach import MAX_CHAIN, is_deep
from amends_saga.plan import CallPlan, MethodKind

MAX_REACHED = 20_000
"""The most messages, fields and enum values that a saga may reach: its owner keeps them all in memory."""


def compile_model(
    model: Model, required: Sequence[str], texts: Mapping[tuple[int, ExpressionRole], str]
) -> CompiledSaga:
    """Return the compiled saga of a model without errors.

    `required` are paths of input fields, `texts` are expressions with explicit copies. Raises BundleError when its
    messages cannot be used together.
    """
    saga = model.saga
    steps = tuple(_step(model, step, texts) for step in model.steps)
    roots = {RUN_MESSAGE, model.input_type}
    for step in steps:
        for call in (step.action, step.compensation):
            if call is not None:
                roots |= {call.input_type, call.output_type}
    for made in model.steps:
        for expression in made.expressions:
            if expression.checked is not None:
                roots |= expression.checked.literals
    files = reachable_files(model.contracts.definitions, sorted(roots))
    size = sum(map(_weight, files))
    if size > MAX_REACHED:
        raise BundleError(f"It reaches {size:,} messages, fields and enum values, more than {MAX_REACHED:,}.")
    if is_deep(files, roots):
        raise BundleError(f"Its messages lead to each other further than {MAX_CHAIN} deep.")
    bundle = Bundle(
        namespace=saga.metadata.namespace,
        saga=saga.metadata.name,
        input_type=model.input_type,
        required=tuple(sorted(set(required))),
        deadline=saga.deadline,
        stalled_after=saga.stalled_after,
        steps=steps,
        files=tuple(files),
    )
    return load_bundle(bundle.to_bytes())


def _weight(file: FileDescriptorProto) -> int:
    """Return how many messages, fields and enum values a file has."""
    enums = list(file.enum_type)
    weight = 0
    for message in messages(file):
        weight += 1 + len(message.field)
        enums += message.enum_type
    return weight + sum(1 + len(enum.value) for enum in enums)


def _step(model: Model, step: StepModel, texts: Mapping[tuple[int, ExpressionRole], str]) -> BundledStep:
    assert step.action is not None
    assert step.step.call is not None
    used: set[int] = set()
    uses_self = False
    for expression in step.expressions:
        indices = {model.index[name] for name in expression.uses if name in model.index}
        if expression.role is ExpressionRole.COMPENSATION:
            uses_self = step.index in indices
        used |= indices - {step.index}
    undo = step.step.compensate
    compensation = None
    if step.compensation is not None and undo is not None:
        text = texts.get((step.index, ExpressionRole.COMPENSATION), undo.request.value)
        compensation = _call(step.compensation, text, uses_self)
    request = texts.get((step.index, ExpressionRole.REQUEST), step.step.call.request.value)
    return BundledStep(
        name=step.name,
        after=_after(model, step),
        pivot=model.pivot == step.index,
        post=model.is_post(step.index),
        when=step.step.when.value if step.step.when is not None else None,
        uses=tuple(sorted(used)),
        action=_call(step.action, request, False),
        compensation=compensation,
        amendment=step.step.amendment,
    )


def _after(model: Model, step: StepModel) -> tuple[int, ...]:
    """Return what has to have ended before a step begins: for an amendment all that it may be run instead of."""
    if not step.step.amendment:
        return step.after
    return (*step.after, *(one.index for one in model.steps if model.is_post(one.index) and not one.step.amendment))


def _call(method: Method, request: str, uses_self: bool) -> BundledCall:
    retention = method.participant.barrier_retention if method.kind is MethodKind.GUARDED else None
    plan = CallPlan(
        service=method.service,
        method=method.name,
        kind=method.kind,
        window=method.facts.window,
        retention=retention,
        outcomes=dict(method.facts.outcomes),
        uses_self=uses_self,
    )
    return BundledCall(plan, request, method.input_type, method.output_type)
