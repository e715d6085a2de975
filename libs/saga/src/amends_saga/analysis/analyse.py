"""Resolves a saga step by step: graph, methods, messages, pool, expressions. Reports faults as findings.

Called by `checker`. Never raises, whatever the saga looks like.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from amends_saga import codes
from amends_saga.analysis.gather import gather, quarrels
from amends_saga.analysis.model import Expression, ExpressionRole, Graph, Method, Model, ParticipantView, StepModel
from amends_saga.analysis.resolve import Methods, Pin, SetCache
from amends_saga.analysis.words import Told, expression_findings
from amends_saga.cel import Checked, Environment, Problem
from amends_saga.cel.environment import ANYTHING
from amends_saga.definition import Node, RetryPolicyResource, Saga, Step
from amends_saga.descriptors import (
    RUN_MESSAGE,
    Contracts,
    ContractSet,
    DescriptorError,
    parse_set,
)
from amends_saga.findings import Finding, OnFinding, choices
from amends_saga.plan import MethodKind

NO_ROUTES: Mapping[tuple[str, str], Pin] = {}
MAX_TEXT = 256 * 1024
"""The most characters of all expressions of a saga together."""
MAX_PARTS = 30_000
"""The most parts of all expressions together; the time of a check grows with them."""
MAX_UNKNOWN = 500
"""The most findings about unknown names in `after`."""
STATES_A_PART = 20
PARTS_A_PROBLEM = 20


@dataclass
class CheckBudget:
    """The work that the checks of one saga may still do."""

    text: int = MAX_TEXT
    parts: int = MAX_PARTS

    @property
    def is_spent(self) -> bool:
        """Return whether no more expressions are checked."""
        return self.text < 0 or self.parts < 0

    def spend(self, text: str, checked: Checked | list[Problem]) -> None:
        """Take the cost of an expression from the budget."""
        self.text -= len(text)
        if isinstance(checked, Checked):
            self.parts -= checked.parts + checked.states // STATES_A_PART
        else:
            self.parts -= PARTS_A_PROBLEM * len(checked)


def analyse(
    saga: Saga,
    participants: Sequence[ParticipantView],
    policies: Sequence[RetryPolicyResource],
    *,
    descriptors: bytes | None = None,
    sets: SetCache | None = None,
    routes: Mapping[tuple[str, str], Pin] = NO_ROUTES,
) -> Model:
    """Return the model of a saga.

    Of the policies, only those of the saga's namespace apply. `descriptors` is a FileDescriptorSet in which the input
    message is looked up too. `routes` are pinned, by namespace and service.
    """
    findings: list[Finding] = []
    report = findings.append
    cache = sets or SetCache()
    policies = [policy for policy in policies if policy.metadata.namespace == saga.metadata.namespace]
    named = [policy.named() for policy in policies]
    methods = Methods(saga, participants, named, cache, report, routes)
    calls = [_methods(methods, step) for step in saga.steps]
    graph, pivot = _order(saga.steps, [action for action, _ in calls], report)
    extra = _extra_sets(saga, descriptors, cache, report)
    contracts, input_type = gather(saga, methods, extra, report)
    wrong = quarrels(saga, contracts, _messages(calls, input_type))
    findings += wrong
    environment = _environment(saga, contracts, calls, input_type, report) if not wrong else None
    budget, told = CheckBudget(), Told.of(saga)
    steps = tuple(
        StepModel(
            i, step, graph.after[i], *calls[i], _expressions(i, step, calls[i], environment, budget, told, report)
        )
        for i, step in enumerate(saga.steps)
    )
    if environment is not None:
        made = (e.checked.literals for step in steps for e in step.expressions if e.checked is not None)
        findings += quarrels(saga, contracts, {name for literals in made for name in literals})
    return Model(
        saga=saga,
        steps=steps,
        graph=graph,
        pivot=pivot,
        input_type=input_type,
        contracts=contracts,
        environment=environment,
        participants=participants,
        policies=policies,
        unsure=_unsure(saga.steps),
        findings=findings,
    )


def _unsure(steps: Sequence[Step]) -> frozenset[int]:
    names = {step.name for step in steps if not step.amendment}
    return frozenset(i for i, s in enumerate(steps) if any(name not in names for name, _ in s.after or ()))


def _after(steps: Sequence[Step], report: OnFinding) -> tuple[tuple[int, ...], ...]:
    index = {step.name: i for i, step in reversed(list(enumerate(steps)))}
    found: list[tuple[int, ...]] = []
    unknown = 0
    for i, step in enumerate(steps):
        if step.after is None:
            found.append((i - 1,) if i else ())
            continue
        direct: list[int] = []
        for name, node in step.after:
            if name in index:
                direct.append(index[name])
                continue
            unknown += 1
            if unknown <= MAX_UNKNOWN:
                hint = choices(name, (s.name for s in steps if s.name and s is not step))
                report(node.finding(codes.UNKNOWN_STEP, f"No step is called `{name[:80]}`.", hint))
        found.append(tuple(dict.fromkeys(direct)))
    return tuple(found)


def _methods(methods: Methods, step: Step) -> tuple[Method | None, Method | None]:
    """Return the methods of a step's action and of its compensation, as far as they are there."""
    return (
        methods.find(step.call) if step.call is not None else None,
        methods.find(step.compensate) if step.compensate is not None else None,
    )


def _order(steps: Sequence[Step], actions: Sequence[Method | None], report: OnFinding) -> tuple[Graph, int | None]:
    """Return the order of the steps and the pivot. Amendments come after the pivot, and nothing waits for them."""
    ordinary = [step for step in steps if not step.amendment]
    graph = Graph(_after(ordinary, report))
    pivot = _pivot(ordinary, actions, graph)
    behind = (pivot,) if pivot is not None else ()
    return Graph((*graph.after, *((behind,) * (len(steps) - len(ordinary))))), pivot


def _pivot(steps: Sequence[Step], actions: Sequence[Method | None], graph: Graph) -> int | None:
    marked = next((index for index, step in enumerate(steps) if step.pivot), None)
    if marked is not None:
        return marked
    if len(graph.sinks) != 1:
        return None
    last = graph.sinks[0]
    action = actions[last]
    has_effects = action is not None and action.kind is not MethodKind.READ
    return last if has_effects and steps[last].compensate_node is None else None


def _messages(calls: Sequence[tuple[Method | None, Method | None]], input_type: str) -> set[str]:
    """Return the messages of all requests and responses, and of the input."""
    methods = [method for pair in calls for method in pair if method is not None]
    return {input_type, *(name for method in methods for name in (method.input_type, method.output_type))}


def _extra_sets(saga: Saga, descriptors: bytes | None, cache: SetCache, report: OnFinding) -> dict[str, ContractSet]:
    found = {}
    inline = saga.descriptors.inline if saga.descriptors is not None else None
    for owner, data in ((f"Saga {saga.metadata.full_name}", inline), ("the descriptors given", descriptors)):
        if data is None:
            continue
        try:
            found[owner] = ContractSet(parse_set(data)) if data is inline else cache.get(data)
        except DescriptorError as error:
            hint = "Give the output of protoc --include_imports --descriptor_set_out."
            report(saga.input_node.finding(codes.DESCRIPTORS_BROKEN, str(error), hint))
    return found


def _environment(
    saga: Saga,
    contracts: Contracts,
    calls: Sequence[tuple[Method | None, Method | None]],
    input_type: str,
    report: OnFinding,
) -> Environment | None:
    try:
        pool = contracts.pool()
    except DescriptorError as error:
        hint = "Make the descriptors anew with protoc --include_imports --descriptor_set_out."
        report(saga.metadata.node.finding(codes.DESCRIPTORS_BROKEN, str(error), hint))
        return None
    variables = {"saga": RUN_MESSAGE, "input": ANYTHING}
    if input_type:
        try:
            pool.FindMessageTypeByName(input_type)
        except KeyError:
            message = f"`{input_type}` is no message."
            report(saga.input_node.finding(codes.UNKNOWN_MESSAGE, message, "Name a message, not an enum or a service."))
        else:
            variables["input"] = input_type
    for step, (action, _) in zip(saga.steps, calls, strict=True):
        if step.name and step.name not in variables:
            variables[step.name] = action.output_type if action is not None else ANYTHING
    return Environment(pool, variables)


def _expressions(
    index: int,
    step: Step,
    calls: tuple[Method | None, Method | None],
    environment: Environment | None,
    budget: CheckBudget,
    told: Told,
    report: OnFinding,
) -> tuple[Expression, ...]:
    action, compensation = calls
    wanted: list[tuple[ExpressionRole, Node, Method]] = []
    if action is not None and step.call is not None:
        wanted.append((ExpressionRole.REQUEST, step.call.request, action))
    if action is not None and step.when is not None:
        wanted.append((ExpressionRole.WHEN, step.when, action))
    if compensation is not None and step.compensate is not None:
        wanted.append((ExpressionRole.COMPENSATION, step.compensate.request, compensation))
    if environment is None:
        return ()
    found = []
    for role, node, method in wanted:
        if budget.is_spent:
            break
        checked = environment.compile(node.value, method.package)
        budget.spend(node.value, checked)
        if budget.is_spent:
            message = f"The expressions up to here have more than {MAX_PARTS:,} parts, or {MAX_TEXT:,} characters."
            report(node.finding(codes.TOO_COMPLEX, message, "Split the saga into several."))
        target = "" if role is ExpressionRole.WHEN else method.input_type
        if not isinstance(checked, Checked):
            for finding in expression_findings(node, checked, environment, method, target, told):
                report(finding)
            found.append(Expression(role, index, node, method.package, None, {}, target))
            continue
        found.append(Expression(role, index, node, method.package, checked, _used(checked, environment), target))
    return tuple(found)


def _used(checked: Checked, environment: Environment) -> dict[str, int]:
    return {name: offset for name, offset in checked.free.items() if name in environment.variables}
