"""Resolves a saga step by step: graph, methods, messages, pool, expressions. What is wrong becomes findings.

Called by `check` and `compile`. Never raises on any saga, whatever was wrong with its text.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from amends_saga import codes
from amends_saga.analysis.model import Expression, ExpressionRole, Graph, Method, Model, ParticipantView, StepModel
from amends_saga.analysis.resolve import Methods, SetCache
from amends_saga.analysis.words import expression_findings
from amends_saga.cel import Checked, Environment
from amends_saga.cel.environment import ANYTHING, children
from amends_saga.definition import InlineField, Node, RetryPolicyResource, Saga, Step
from amends_saga.descriptors import (
    RUN_MESSAGE,
    Contracts,
    ContractSet,
    DescriptorError,
    definition_file,
    parse_set,
)
from amends_saga.descriptors.contracts import build_pool
from amends_saga.descriptors.inline import INPUT_MESSAGE
from amends_saga.descriptors.wellknown import ALWAYS, well_known_file
from amends_saga.findings import Finding, choices


def analyse(
    saga: Saga,
    participants: Sequence[ParticipantView],
    policies: Sequence[RetryPolicyResource],
    *,
    descriptors: bytes | None = None,
    sets: SetCache | None = None,
) -> Model:
    """Return the model of a saga. `descriptors` is a FileDescriptorSet to look for the input message in as well."""
    findings: list[Finding] = []
    cache = sets or SetCache()
    named = [policy.named() for policy in policies]
    methods = Methods(saga.metadata.namespace, participants, named, cache, findings.append)
    calls = [
        (
            methods.find(step.call) if step.call is not None else None,
            methods.find(step.compensate) if step.compensate is not None else None,
        )
        for step in saga.steps
    ]
    graph = Graph(_after(saga.steps, findings))
    extra = _extra_sets(saga, descriptors, cache, findings)
    contracts, input_type = _contracts(saga, methods.sets, extra, findings)
    environment = _environment(saga, contracts, calls, input_type, findings)
    steps = tuple(
        StepModel(i, step, graph.after[i], *calls[i], _expressions(i, step, calls[i], environment, findings))
        for i, step in enumerate(saga.steps)
    )
    return Model(
        saga=saga,
        steps=steps,
        graph=graph,
        pivot=_pivot(steps, graph),
        input_type=input_type,
        contracts=contracts,
        environment=environment,
        participants=participants,
        policies=policies,
        unsure=_unsure(saga.steps),
        findings=findings,
    )


def _unsure(steps: Sequence[Step]) -> frozenset[int]:
    names = {step.name for step in steps}
    return frozenset(i for i, s in enumerate(steps) if any(name not in names for name, _ in s.after or ()))


def _after(steps: Sequence[Step], findings: list[Finding]) -> tuple[tuple[int, ...], ...]:
    index = {step.name: i for i, step in reversed(list(enumerate(steps)))}
    found: list[tuple[int, ...]] = []
    for i, step in enumerate(steps):
        if step.after is None:
            found.append((i - 1,) if i else ())
            continue
        direct: list[int] = []
        for name, node in step.after:
            if name not in index:
                hint = choices(name, (s.name for s in steps if s.name and s is not step))
                findings.append(node.finding(codes.UNKNOWN_STEP, f"No step is called `{name[:80]}`.", hint))
            else:
                direct.append(index[name])
        found.append(tuple(dict.fromkeys(direct)))
    return tuple(found)


def _pivot(steps: Sequence[StepModel], graph: Graph) -> int | None:
    marked = next((step.index for step in steps if step.step.pivot), None)
    if marked is not None:
        return marked
    if len(graph.sinks) != 1:
        return None
    last = steps[graph.sinks[0]]
    has_effects = last.action is not None and not last.is_read
    return last.index if has_effects and last.step.compensate_node is None else None


def _extra_sets(saga: Saga, descriptors: bytes | None, cache: SetCache, findings: list[Finding]) -> list[ContractSet]:
    found = []
    inline = saga.descriptors.inline if saga.descriptors is not None else None
    for owner, data in ((f"Saga {saga.metadata.full_name}", inline), ("the descriptors given", descriptors)):
        if data is None:
            continue
        try:
            found.append(ContractSet(owner, parse_set(data)) if data is inline else cache.get(owner, data))
        except DescriptorError as error:
            hint = "Give the output of protoc --include_imports --descriptor_set_out."
            findings.append(saga.input_node.finding(codes.DESCRIPTORS_BROKEN, str(error), hint))
    return found


def _contracts(
    saga: Saga, services: Mapping[str, ContractSet], extra: Sequence[ContractSet], findings: list[Finding]
) -> tuple[Contracts, str]:
    contracts = Contracts()
    for service in sorted(services):
        contracts.take(services[service], [services[service].symbols[service]])
    searched = [*dict.fromkeys(services[name] for name in sorted(services)), *extra]
    fields: tuple[InlineField, ...] = ()
    enums, imports = frozenset[str](), list[str]()
    if isinstance(saga.input, str):
        input_type = _find(saga.input, saga.input_node, contracts, searched, findings)
    else:
        fields, input_type = saga.input, INPUT_MESSAGE
        named = {item.type: item.node for item in fields if "." in item.type}
        found = {name: _find(name, node, contracts, searched, findings) for name, node in named.items()}
        fields = tuple(item for item in fields if item.type not in found or found[item.type])
        imports = [contracts_file(name, contracts) for name in found if found[name]]
        enums = frozenset(name for name in found if _is_enum(name, contracts))
    for name in ALWAYS:
        known = well_known_file(name)
        if known is not None:
            contracts.files.setdefault(name, known)
    file = definition_file(fields, enums, imports)
    if not isinstance(saga.input, str) and not fields:
        file.message_type.add(name="Input")
    contracts.files[file.name] = file
    _quarrels(saga, contracts, findings)
    return contracts, input_type


def contracts_file(name: str, contracts: Contracts) -> str:
    """Return the file that defines a message or enum in merged contracts; empty when none does."""
    for file in contracts.files.values():
        prefix = f"{file.package}." if file.package else ""
        if name.startswith(prefix):
            first = name[len(prefix) :].split(".")[0]
            if any(m.name == first for m in file.message_type) or any(e.name == first for e in file.enum_type):
                return file.name
    return ""


def _is_enum(name: str, contracts: Contracts) -> bool:
    file = contracts.files.get(contracts_file(name, contracts))
    if file is None:
        return False
    prefix = f"{file.package}." if file.package else ""
    *outer, last = name[len(prefix) :].split(".")
    scope: Any = file
    for part in outer:
        nested: Any = scope.message_type if scope is file else scope.nested_type
        scope = next((item for item in nested if item.name == part), None)
        if scope is None:
            return False
    return any(item.name == last for item in scope.enum_type)


def _find(name: str, node: Node, contracts: Contracts, searched: Sequence[ContractSet], findings: list[Finding]) -> str:
    """Take the file that defines a message, and return the message's name; empty (and a finding) when none does."""
    if contracts_file(name, contracts):
        return name
    for given in searched:
        if name in given.symbols:
            contracts.take(given, [given.symbols[name]])
            return name
    stem = name.removeprefix("google.protobuf.")
    if stem != name:
        for file_name in ALWAYS:
            known = well_known_file(file_name)
            if known is not None and any(item.name == stem for item in known.message_type):
                contracts.files.setdefault(file_name, known)
                return name
    known_names = {symbol for given in searched for symbol in given.symbols}
    hint = choices(name, known_names, "Name a message of a service that the saga calls, or list the fields here.")
    findings.append(node.finding(codes.UNKNOWN_MESSAGE, f"There is no message `{name[:120]}`.", hint))
    return ""


def _quarrels(saga: Saga, contracts: Contracts, findings: list[Finding]) -> None:
    for conflict in contracts.conflicts:
        message = f"{conflict.what} is not the same in the contracts of {conflict.first} and {conflict.second}."
        hint = "Build both services with the same version of the file."
        findings.append(saga.metadata.node.finding(codes.DESCRIPTORS_CONFLICT, message, hint))
    for owner, name in contracts.missing:
        message = f"The descriptors of {owner} import `{name}`, which they do not hold."
        hint = "Make them with protoc --include_imports."
        findings.append(saga.metadata.node.finding(codes.DESCRIPTORS_BROKEN, message, hint))


def _environment(
    saga: Saga,
    contracts: Contracts,
    calls: Sequence[tuple[Method | None, Method | None]],
    input_type: str,
    findings: list[Finding],
) -> Environment | None:
    if contracts.conflicts or contracts.missing:
        return None
    try:
        pool = build_pool(contracts.files.values())
    except DescriptorError as error:
        hint = "Make the descriptors anew with protoc --include_imports --descriptor_set_out."
        findings.append(saga.metadata.node.finding(codes.DESCRIPTORS_BROKEN, str(error), hint))
        return None
    variables = {"saga": RUN_MESSAGE, "input": ANYTHING}
    if input_type:
        try:
            pool.FindMessageTypeByName(input_type)
        except KeyError:
            message = f"`{input_type}` is no message."
            findings.append(
                saga.input_node.finding(codes.UNKNOWN_MESSAGE, message, "Name a message, not an enum or a service.")
            )
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
    findings: list[Finding],
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
        checked = environment.compile(node.value, method.package)
        target = "" if role is ExpressionRole.WHEN else method.input_type
        if not isinstance(checked, Checked):
            findings.extend(expression_findings(node, checked, environment, method, target))
            found.append(Expression(role, index, node, method.package, None, {}, target))
            continue
        found.append(Expression(role, index, node, method.package, checked, _uses(checked, environment), target))
    return tuple(found)


def _uses(checked: Checked, environment: Environment) -> dict[str, int]:
    """Return the variables that an expression reads, each with the offset of its first use."""
    uses: dict[str, int] = {}
    waiting = [(checked.root, frozenset[str]())]
    while waiting:
        node, bound = waiting.pop()
        if node.HasField("ident_expr"):
            name = node.ident_expr.name
            if name in environment.variables and name not in bound and node.id not in checked.type_names:
                uses[name] = min(uses.get(name, len(checked.text)), checked.offset(node.id))
        elif node.HasField("comprehension_expr"):
            inner = node.comprehension_expr
            now = bound | {inner.iter_var, inner.iter_var2, inner.accu_var}
            waiting += [(inner.iter_range, bound), (inner.accu_init, bound)]
            waiting += [(part, now) for part in (inner.loop_condition, inner.loop_step, inner.result)]
        else:
            waiting += [(child, bound) for child in children(node)]
    return uses
