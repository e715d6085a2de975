"""Rules about the type of expressions, and about which names are in scope where they stand.

Each rule is a pure function over the model, without data flow; called by `checker`.
"""

from collections.abc import Iterator

from amends_saga import codes
from amends_saga.analysis import ExpressionRole, Model
from amends_saga.analysis.words import at
from amends_saga.cel.types import Type
from amends_saga.cel.wellknown import fits
from amends_saga.check.rule import Rule
from amends_saga.findings import Finding

_HIDING = "MergeFromString"


def result_type(model: Model) -> Iterator[Finding]:
    """Report requests that are not the method's input type, and conditions that are not booleans."""
    for step in model.steps:
        for expression in step.expressions:
            if expression.checked is None:
                continue
            type_, wanted = expression.checked.type, expression.target or "bool"
            if fits(wanted, type_) if expression.target else type_ == Type("bool"):
                continue
            message = f"The {expression.role.value} of `{step.name}` must be of type {wanted}, it is of type {type_}."
            short = wanted.rpartition(".")[2]
            hint = f"Write `{short}{{...}}`." if expression.target else "Write a comparison, or `has(...)`."
            yield expression.node.finding(codes.RESULT_TYPE, message, hint)


def not_in_scope(model: Model) -> Iterator[Finding]:
    """Report responses of steps that are not certain to have finished before."""
    if not model.graph.is_acyclic:
        return
    for step in model.steps:
        for expression in step.expressions:
            for name, offset in expression.uses.items():
                used = model.index.get(name)
                if used is None or step.index in model.unsure or model.graph.precedes(used, step.index):
                    continue
                if used == step.index:
                    if expression.role is ExpressionRole.COMPENSATION:
                        continue
                    message = f"`{name}` is this step's own response, which its {expression.role.value} comes before."
                    hint = "Only the compensation can use it."
                else:
                    message = f"`{name}` is not certain to have finished before `{step.name}` begins."
                    hint = f"Put `{name}` into the `after` of `{step.name}`, or use another value."
                    if step.step.amendment or model.steps[used].step.amendment:
                        hint = "Use the input, or the response of the pivot or of a step before it."
                    elif model.graph.precedes(step.index, used):
                        hint = f"`{name}` comes after `{step.name}`: use a value of the input, or move the step."
                yield at(expression.node, offset, len(name), codes.NOT_IN_SCOPE, message, hint)


def hiding_field(model: Model) -> Iterator[Finding]:
    """Report requests that cel-expr-python cannot make, because a field is called like the method that it uses."""
    if model.environment is None:
        return
    for step in model.steps:
        for expression in step.expressions:
            if expression.checked is None or not expression.target:
                continue
            made = model.environment.pool.FindMessageTypeByName(expression.target)
            if _HIDING in made.fields_by_name:
                message = f"`{expression.target}` has a field `{_HIDING}`, so that no expression can make it."
                hint = "Rename the field in the contract: its number, and its name in JSON, may stay."
                yield expression.node.finding(codes.HIDING_FIELD, message, hint)


RULES: tuple[Rule, ...] = (result_type, not_in_scope, hiding_field)
