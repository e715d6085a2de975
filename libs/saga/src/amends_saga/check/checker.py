"""Reads, analyses and checks definitions: the entry points of the checker.

Called by the CLI (`amends check`), the orchestrator (`CheckSaga`, `ApplySaga`) and the compiler.
"""

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from amends_saga import codes
from amends_saga.analysis import Model, ParticipantView, Pin, analyse
from amends_saga.analysis.analyse import NO_ROUTES
from amends_saga.analysis.resolve import SetCache
from amends_saga.bundle import BundleError
from amends_saga.cel.environment import OWN
from amends_saga.check import constants, dataloss, numbers, resources, scope, shape, timing, views
from amends_saga.check.choreographies import ChoreographyCheck, check_choreography
from amends_saga.check.figures import SagaFigures, figures_of
from amends_saga.check.rule import Rule
from amends_saga.compile import compile_model
from amends_saga.compiled import CompiledSaga
from amends_saga.definition import Document, Node, Resources, RetryPolicyResource, Saga, SagaRun, read
from amends_saga.findings import Finding, has_errors, ordered
from amends_saga.jsonform import InputError

RULES: tuple[Rule, ...] = (
    *shape.RULES,
    *scope.RULES,
    *views.RULES,
    *dataloss.RULES,
    *numbers.RULES,
    *constants.RULES,
    *timing.RULES,
)
"""Every rule over a saga's model, in the order of their codes' groups."""


@dataclass(frozen=True)
class SagaCheck:
    """The result of checking one saga."""

    model: Model
    findings: list[Finding]
    """About this saga alone: errors first, then by place."""
    compiled: CompiledSaga | None
    """None when there is an error."""
    figures: SagaFigures


@dataclass(frozen=True)
class CheckResult:
    """The result of checking all documents."""

    findings: list[Finding] = field(default_factory=list)
    """Errors first, then by place."""
    sagas: list[CompiledSaga] = field(default_factory=list)
    """Those without an error."""
    figures: list[SagaFigures] = field(default_factory=list)
    choreographies: list[ChoreographyCheck] = field(default_factory=list)
    """All of them."""
    resources: Resources = field(default_factory=Resources)
    """Everything that could be read."""

    @property
    def ok(self) -> bool:
        """Return whether there is no error; there may be warnings."""
        return not has_errors(self.findings)


def check(
    documents: Sequence[Document],
    *,
    namespace: str = "default",
    participants: Sequence[ParticipantView] = (),
    policies: Sequence[RetryPolicyResource] = (),
    descriptors: bytes | None = None,
    routes: Mapping[tuple[str, str], Pin] = NO_ROUTES,
) -> CheckResult:
    """Return all findings about the documents, the compiled sagas among them, and their figures.

    Participants and RetryPolicies of the documents are added to those given, and replace those of the same namespace
    and name. `descriptors` is a FileDescriptorSet for every Participant and Choreography whose own is not known.
    `routes` are the pinned Participants, by namespace and service.
    """
    read_ = read(documents, namespace=namespace)
    return check_resources(read_, participants=participants, policies=policies, descriptors=descriptors, routes=routes)


def check_resources(
    read_: Resources,
    *,
    participants: Sequence[ParticipantView] = (),
    policies: Sequence[RetryPolicyResource] = (),
    descriptors: bytes | None = None,
    routes: Mapping[tuple[str, str], Pin] = NO_ROUTES,
) -> CheckResult:
    """Return the result of `check` for documents that have been read already."""
    views = _views(read_, participants, descriptors)
    own = {policy.metadata.full_name for policy in read_.policies}
    in_force = [*read_.policies, *(policy for policy in policies if policy.metadata.full_name not in own)]
    findings = list(read_.findings)
    sets = SetCache()
    with _no_collection():
        checks = [
            check_saga(saga, views, in_force, descriptors=descriptors, sets=sets, routes=routes) for saga in read_.sagas
        ]
    for checked in checks:
        findings += checked.findings
    findings += resources.participant_findings(read_, views, sets)
    findings += resources.policy_findings(read_, views)
    choreographies = [check_choreography(one, descriptors) for one in read_.choreographies]
    for one in choreographies:
        findings += one.findings
    broken = _with_errors(read_)
    compiled = [found.compiled for found in checks if found.compiled is not None]
    compiled = [saga for saga in compiled if (saga.plan.namespace, saga.plan.saga) not in broken]
    findings += _run_findings(read_.runs, compiled)
    return CheckResult(ordered(findings), compiled, [found.figures for found in checks], choreographies, read_)


def check_saga(
    saga: Saga,
    participants: Sequence[ParticipantView],
    policies: Sequence[RetryPolicyResource],
    *,
    descriptors: bytes | None = None,
    sets: SetCache | None = None,
    routes: Mapping[tuple[str, str], Pin] = NO_ROUTES,
) -> SagaCheck:
    """Return the findings about one saga, and the compiled saga when none is an error."""
    model = analyse(saga, participants, policies, descriptors=descriptors, sets=sets, routes=routes)
    findings = list(model.findings)
    for rule in RULES:
        findings.extend(rule(model))
    required = dataloss.required_input(model)
    complete = all(
        step.action is not None and (step.step.compensate_node is None or step.compensation is not None)
        for step in model.steps
    )
    compiled = None
    if complete and not has_errors(findings):
        try:
            compiled = compile_model(model, required, dataloss.written_out(model))
        except BundleError as error:
            hint = "Call methods whose messages are smaller."
            findings.append(saga.input_node.finding(codes.DESCRIPTORS_BROKEN, str(error), hint))
    return SagaCheck(model, ordered(findings), compiled, figures_of(model, required))


@contextmanager
def _no_collection() -> Iterator[None]:
    """Switch the garbage collector off: a large saga makes many objects that all stay in use."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _views(read_: Resources, given: Sequence[ParticipantView], descriptors: bytes | None) -> list[ParticipantView]:
    known = {view.participant.metadata.full_name: view for view in given}
    views = []
    for participant in read_.participants:
        before = known.pop(participant.metadata.full_name, None)
        if before is not None and before.participant.service == participant.service:
            views.append(ParticipantView(participant, before.descriptors, before.why))
        else:
            views.append(ParticipantView(participant, None))
    views.extend(known.values())
    return [
        view
        if view.descriptors is not None
        else ParticipantView(view.participant, view.participant.descriptors.inline or descriptors, view.why)
        for view in views
    ]


def _with_errors(read_: Resources) -> set[tuple[str, str]]:
    """Return the sagas whose text has an error that the analysis ignores, such as an unknown field."""
    broken = set()
    for saga in read_.sagas:
        root = saga.metadata.node
        first, last = root.place().line, root.source.place(root.end).line
        if any(
            finding.is_error and finding.place.source == root.source.name and first <= finding.place.line <= last
            for finding in read_.findings
        ):
            broken.add((saga.metadata.namespace, saga.metadata.name))
    return broken


def _run_findings(runs: Sequence[SagaRun], compiled: Sequence[CompiledSaga]) -> list[Finding]:
    known = {(saga.plan.namespace, saga.plan.saga): saga for saga in compiled}
    found = []
    for run in runs:
        saga = known.get((run.metadata.namespace, run.saga))
        if saga is None:
            continue
        try:
            saga.parse_input(run.input)
        except InputError as error:
            node = _node_at(run.input_node or run.metadata.node, error.path)
            message = f"The input does not fit: {error}"
            name = saga.input_descriptor.full_name
            expected = "the fields that the saga's `input` declares" if name in OWN else name
            hint = f"Write it as canonical protobuf JSON of {expected}."
            found.append(node.finding(codes.BAD_VALUE, message, hint))
    return found


def _node_at(node: Node, path: str) -> Node:
    for part in path.replace("[", ".").replace("]", "").split("."):
        names = {part, part.replace("_", "")}
        inner = next((v for k, v in node.pairs if k.value in names or k.value.lower() in names), None)
        if inner is None and part.isdigit() and int(part) < len(node.items):
            inner = node.items[int(part)]
        if inner is None:
            return node
        node = inner
    return node
