"""Reads the specs of Participant, RetryPolicy and SagaRun.

Called by `documents`.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from amends_resilience import (
    STATUS_NAMES,
    Backoff,
    BreakerPolicy,
    BudgetPolicy,
    BulkheadPolicy,
    RetryPolicy,
    Selector,
)

from amends_saga import codes
from amends_saga.definition.fields import Fields, is_name
from amends_saga.definition.nodes import Node, NodeKind, to_json
from amends_saga.definition.resources import (
    Descriptors,
    MethodEntry,
    Participant,
    ResourceMetadata,
    RetryPolicyResource,
    SagaRun,
)
from amends_saga.definition.saga_kind import descriptors, is_full_name
from amends_saga.findings import Finding, choices

IDEMPOTENCY = ("ONCE", "IDEMPOTENT", "KEYED", "NO_SIDE_EFFECTS")
OUTCOMES = ("ok", "rejected", "unknown")
LONGEST_KEY = 255
_PARTICIPANT = (
    "service",
    "target",
    "identity",
    "methods",
    "callers",
    "barrierRetention",
    "descriptors",
    "calls",
    "suspend",
)
MAX_TARGET = 300
MAX_PORT = 65_535
_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DNS = re.compile(rf"dns:///(?!(.*\.)?(0x[0-9a-f]*|[0-9]+):){_LABEL}(\.{_LABEL})*:(?P<port>[1-9][0-9]{{0,4}})")
_LOOPBACK = re.compile(r"(dns:///)?(127\.0\.0\.1|\[::1\]|localhost):(?P<port>[1-9][0-9]{0,4})")
"""The forms of targets, as the CRD has them."""
_ENTRY = ("name", "guarded", "compensatedBy", "idempotency", "window", "outcomes")
_RUN = ("saga", "key", "input", "suspend", "ttlAfterEnd", "onDeletion", "resolution")
_POLICY = ("selector", "timeout", "attempts", "backoff", "retryOn", "budget", "circuitBreaker", "bulkhead", "suspend")


def participant(metadata: ResourceMetadata, spec: Node, findings: list[Finding]) -> Participant | None:
    """Return the Participant, None when it has no service or target."""
    fields = Fields(spec, "The spec of a Participant", _PARTICIPANT, findings, required=("service", "target"))
    service, target = fields.text("service"), fields.text("target")
    service_node, methods_node = fields.node_of("service"), fields.node_of("methods")
    if service is not None and service_node is not None and not is_full_name(service):
        hint = "Write package and service, e.g. shop.payments.v1.PaymentService."
        fields.add(codes.BAD_NAME, service_node, f"`{service[:80]}` cannot name a service.", hint)
        return None
    every, entries = _methods(fields, findings)
    callers = fields.texts("callers") or ()
    for name, node in callers:
        if not is_name(name):
            hint = "Use lower case letters, digits and dashes, at most 63."
            fields.add(codes.BAD_NAME, node, f"`{name[:80]}` cannot name a namespace.", hint)
    retention, given = fields.duration("barrierRetention"), descriptors(fields)
    calls = fields.texts("calls") or ()
    fields.flag("suspend")
    if target is not None:
        _check_target(fields, target)
    identity = fields.node_of("identity")
    if identity is not None:
        hint = "Leave it out. Who may reach the service is for its network policy or its mesh to say."
        fields.add(codes.NOT_VERIFIED, identity, "This release does not verify `identity`.", hint)
    if service is None or target is None or service_node is None:
        return None
    return Participant(
        metadata=metadata,
        service=service,
        target=target,
        service_node=service_node,
        methods_node=methods_node,
        all_methods=every,
        methods=entries,
        callers=tuple(name for name, _ in callers),
        barrier_retention=retention,
        descriptors=given or Descriptors(reflection=True),
        calls=calls,
    )


def _check_target(fields: Fields, target: str) -> None:
    """Report a target that no orchestrator accepts; each orchestrator has further rules of its own."""
    found = _LOOPBACK.fullmatch(target) or _DNS.fullmatch(target)
    node = fields.node_of("target")
    if node is None or (found is not None and len(target) <= MAX_TARGET and int(found["port"]) <= MAX_PORT):
        return
    message = f"`{target[:120]}` is no target."
    if found is not None and int(found["port"]) > MAX_PORT:
        message = f"`{target[:120]}` has no port from 1 to {MAX_PORT}."
    fields.add(codes.BAD_VALUE, node, message, "Write dns:///NAME:PORT, or 127.0.0.1:PORT for this machine.")


def _methods(fields: Fields, findings: list[Finding]) -> tuple[bool, Mapping[str, MethodEntry]]:
    node = fields.node_of("methods")
    if node is None:
        return False, {}
    if node.kind is not NodeKind.SEQUENCE:
        fields.add(codes.WRONG_TYPE, node, "`methods` must be a list.", 'Write `["*"]` to allow all of them.')
        return False, {}
    every, entries = False, dict[str, MethodEntry]()
    for item in fields.few("methods", node.items):
        if item.kind is NodeKind.SCALAR and item.value == "*":
            every = True
            continue
        entry = MethodEntry(item.value, item) if item.kind is NodeKind.SCALAR else _entry(item, findings)
        if entry is None:
            continue
        if "." in entry.name or not is_full_name(entry.name):
            hint = "Write the method's name alone, e.g. Charge."
            fields.add(codes.BAD_NAME, item, f"`{entry.name[:80]}` cannot name a method.", hint)
        elif entry.name in entries:
            fields.add(codes.DUPLICATE_FIELD, item, f"Method `{entry.name}` is given twice.", "Leave one of them out.")
        else:
            entries[entry.name] = entry
    return every, entries


def _entry(node: Node, findings: list[Finding]) -> MethodEntry | None:
    fields = Fields(node, "An entry of `methods`", _ENTRY, findings, required=("name",))
    name = fields.text("name")
    entry = MethodEntry(
        name=name or "",
        node=node,
        guarded=fields.flag("guarded"),
        idempotency=fields.choice("idempotency", IDEMPOTENCY),
        compensated_by=fields.text("compensatedBy"),
        window=fields.duration("window"),
        outcomes=_outcomes(fields),
    )
    window_node = fields.node_of("window")
    if window_node is not None and entry.idempotency != "KEYED" and not entry.guarded:
        hint = "Add `idempotency: KEYED`, or leave `window` out."
        fields.add(codes.BAD_VALUE, window_node, "`window` is for methods that remember keys.", hint)
    return None if name is None else entry


def _outcomes(fields: Fields) -> Mapping[str, str]:
    node = fields.node_of("outcomes")
    if node is None:
        return {}
    part = fields.part("outcomes", sorted(STATUS_NAMES))
    found = {name: part.choice(name, OUTCOMES) for name in sorted(STATUS_NAMES)} if part is not None else {}
    return {name: outcome for name, outcome in found.items() if outcome is not None}


def retry_policy(metadata: ResourceMetadata, spec: Node, findings: list[Finding]) -> RetryPolicyResource | None:
    """Return the RetryPolicy, None when one of its values is invalid."""
    before = sum(finding.is_error for finding in findings)
    fields = Fields(spec, "The spec of a RetryPolicy", _POLICY, findings)
    fields.flag("suspend")
    selector = fields.part("selector", ("participants", "methods"))
    services = (selector.texts("participants") if selector is not None else None) or ()
    methods = (selector.texts("methods") if selector is not None else None) or ()
    default = RetryPolicy()
    policy = RetryPolicy(
        timeout=fields.duration("timeout") or default.timeout,
        attempts=_or(fields.whole("attempts"), default.attempts),
        backoff=_backoff(fields),
        retry_on=_retry_on(fields),
        budget=_budget(fields),
        circuit_breaker=_breaker(fields),
        bulkhead=_bulkhead(fields),
    )
    if sum(finding.is_error for finding in findings) == before:
        for sentence in policy.validate():
            node = spec.get(sentence.split(" ")[0].split(".")[0]) or spec
            fields.add(codes.BAD_VALUE, node, sentence, "Choose a value within these bounds.")
    if sum(finding.is_error for finding in findings) > before:
        return None
    chosen = Selector(tuple(name for name, _ in services), tuple(name for name, _ in methods))
    return RetryPolicyResource(metadata, chosen, policy, services, methods)


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _backoff(fields: Fields) -> Backoff:
    part, default = fields.part("backoff", ("initial", "max", "multiplier")), Backoff()
    if part is None:
        return default
    initial, longest = part.duration("initial"), part.duration("max")
    return Backoff(
        initial or default.initial,
        longest or max(default.maximum, initial or timedelta(0)),
        _or(part.number("multiplier"), default.multiplier),
    )


def _retry_on(fields: Fields) -> frozenset[str]:
    names = fields.texts("retryOn")
    if names is None:
        return RetryPolicy().retry_on
    for name, node in names:
        if name not in STATUS_NAMES:
            hint = choices(name, STATUS_NAMES, "Use the name of a gRPC status, e.g. UNAVAILABLE.")
            fields.add(codes.BAD_VALUE, node, f"`{name[:80]}` is no gRPC status that can be retried.", hint)
    return frozenset(name for name, _ in names)


def _budget(fields: Fields) -> BudgetPolicy:
    part, default = fields.part("budget", ("ratio", "minPerSecond")), BudgetPolicy()
    if part is None:
        return default
    return BudgetPolicy(
        _or(part.number("ratio"), default.ratio), _or(part.whole("minPerSecond"), default.min_per_second)
    )


def _breaker(fields: Fields) -> BreakerPolicy:
    part = fields.part("circuitBreaker", ("failureRatio", "minimumCalls", "window", "openFor"))
    default = BreakerPolicy()
    if part is None:
        return default
    return BreakerPolicy(
        _or(part.number("failureRatio"), default.failure_ratio),
        _or(part.whole("minimumCalls"), default.minimum_calls),
        part.duration("window") or default.window,
        part.duration("openFor") or default.open_for,
    )


def _bulkhead(fields: Fields) -> BulkheadPolicy:
    part, default = fields.part("bulkhead", ("maxConcurrent", "maxQueued")), BulkheadPolicy()
    if part is None:
        return default
    return BulkheadPolicy(
        _or(part.whole("maxConcurrent"), default.max_concurrent), _or(part.whole("maxQueued"), default.max_queued)
    )


def _operators_own(fields: Fields) -> None:
    """Check fields that only the operator uses, so that mistakes are found without a cluster too."""
    fields.flag("suspend")
    _run_key(fields)
    fields.duration("ttlAfterEnd")
    fields.choice("onDeletion", ("Compensate", "Abandon"))
    decided = ("action", "reason", "actor", "expectedSeq")
    part = fields.part("resolution", (*decided, "effect", "result"), required=decided)
    if part is not None:
        part.choice("action", ("Retry", "Skip", "Compensate", "Park"))
        part.choice("effect", ("Happened", "None"))


def _run_key(fields: Fields) -> None:
    node, key = fields.node_of("key"), fields.text("key")
    if node is None or key is None:
        return
    if not 1 <= len(key) <= LONGEST_KEY or not key.isprintable():
        message = f"`key` must have 1 to {LONGEST_KEY} printable characters."
        fields.add(codes.BAD_VALUE, node, message, "Use what names the work, e.g. the number of the order.")
    elif key.startswith("sagarun/"):
        hint = "Choose another beginning: keys made of a SagaRun's UID begin so."
        fields.add(codes.BAD_VALUE, node, "`key` must not begin with sagarun/.", hint)


def saga_run(metadata: ResourceMetadata, spec: Node, findings: list[Finding]) -> SagaRun | None:
    """Return the SagaRun, None when it names no saga."""
    fields = Fields(spec, "The spec of a SagaRun", _RUN, findings, required=("saga",))
    _operators_own(fields)
    saga, node = fields.text("saga"), fields.node_of("input")
    if node is not None and node.kind is not NodeKind.MAPPING:
        fields.add(
            codes.WRONG_TYPE, node, "`input` must be a mapping.", "Write the fields of the saga's input message."
        )
        return None
    if saga is None:
        return None
    return SagaRun(metadata, saga, to_json(node) if node is not None else {}, node)
