"""The jobs of the worker process: reads texts, checks and compiles them, and lists a Participant's methods.

Each job takes and returns plain values and bytes; `client` is the other half. Nothing here uses the database or the
network.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from amends_saga import codes
from amends_saga.analysis import ParticipantView, Pin, pin_of, resolve
from amends_saga.bundle import BundleError
from amends_saga.check import CheckResult, check_resources
from amends_saga.compiled import CompiledSaga, load_bundle
from amends_saga.definition import Document, Participant, Resources, Saga, read
from amends_saga.descriptors import ContractSet, DescriptorError, parse_set, resolve_facts
from amends_saga.findings import Finding, Place, ordered

from amends_orchestrator.calls.ports import ConfinementError
from amends_orchestrator.calls.targets import TargetRules, TargetScope
from amends_orchestrator.worker.pins import read_pins, write_pins
from amends_orchestrator.worker.resources import participant_of, policy_of

Blobs = Sequence[bytes]
JobResult = tuple[dict[str, Any], list[bytes]]

MAX_FINDINGS = 1_000
MAX_BUILD_SECONDS = 1.0
"""Processor time that the orchestrator itself may need to make a compiled saga ready."""


def read_job(head: dict[str, Any], blobs: Blobs) -> JobResult:
    """Return the resources in texts that decide which contracts the texts are checked with."""
    resources = read(_documents(head["documents"]), namespace=head["namespace"])
    found: list[bytes] = []
    participants = []
    for participant in resources.participants:
        inline = participant.descriptors.inline
        participants.append(
            {
                "namespace": participant.metadata.namespace,
                "name": participant.metadata.name,
                "service": participant.service,
                "target": participant.target,
                "reflection": participant.descriptors.reflection,
                "inline": _keep(found, inline) if inline is not None else None,
            }
        )
    named = {
        (saga.metadata.namespace, service): Pin(participant, saga.metadata.name)
        for saga in resources.sagas
        for service, participant in saga.participants.items()
    }
    is_large = any(finding.code == codes.TOO_LARGE.id for finding in resources.findings)
    answer = {
        "participants": participants,
        "calls": sorted(_calls(resources)),
        "named": write_pins(named),
        "refused": [_finding(finding) for finding in _few(ordered(resources.findings))] if is_large else [],
    }
    return answer, found


def _calls(resources: Resources) -> set[tuple[str, str]]:
    """Return the namespaces of sagas, each with a service that one of them calls."""
    return {
        (saga.metadata.namespace, call.service)
        for saga in resources.sagas
        for step in saga.steps
        for call in (step.call, step.compensate)
        if call is not None
    }


def check_job(head: dict[str, Any], blobs: Blobs) -> JobResult:
    """Check texts against the resources in force, and compile the sagas that have no error."""
    contracts = {name: blobs[at] for name, at in head["contracts"].items()}
    read_ = read(_documents(head["documents"]), namespace=head["namespace"])
    participants = [*_not_replaced(head["participants"], read_.participants), *read_.participants]
    views = [_view(participant, contracts, head["why"]) for participant in participants]
    policies = [found for found in (_policy(*row) for row in head["policies"]) if found is not None]
    routes = read_pins(head["routes"])
    result = check_resources(read_, participants=views, policies=policies, routes=routes)
    rules = TargetRules(TargetScope(head["scope"]), tuple(head["suffixes"]))
    findings = [*result.findings, *_also_confined(read_.participants, rules, result.findings)]
    bundles: list[bytes] = []
    sagas = []
    for compiled in result.sagas:
        costly = _costly(compiled, result)
        if costly is not None:
            findings.append(costly)
            continue
        saga = _saga_of(compiled, result)
        sagas.append(
            {
                "namespace": compiled.plan.namespace,
                "name": compiled.plan.saga,
                "digest": compiled.digest,
                "bundle": _keep(bundles, compiled.bundle),
                "routes": _routes(saga, views, routes),
                "named": sorted(saga.participants),
            }
        )
    answer = {
        "findings": [_finding(finding) for finding in _few(ordered(findings))],
        "sagas": sagas,
        "resources": _names(result.resources),
        "methods": _methods(read_.participants, contracts),
    }
    return answer, bundles


def _not_replaced(rows: Sequence[Any], replacing: Sequence[Participant]) -> list[Participant]:
    """Return the Participants in force, without those that the texts replace."""
    replaced = {participant.metadata.full_name for participant in replacing}
    known = (_participant(*row) for row in rows)
    return [found for found in known if found is not None and found.metadata.full_name not in replaced]


def _also_confined(
    participants: Sequence[Participant], rules: TargetRules, findings: Sequence[Finding]
) -> list[Finding]:
    """Return the findings about targets at places where the checker has reported no error."""
    reported = {finding.place for finding in findings if finding.is_error}
    confined = (found for participant in participants for found in _confined(participant, rules))
    return [found for found in confined if found.place not in reported]


def build_job(head: dict[str, Any], blobs: Blobs) -> JobResult:
    """Try whether the orchestrator can load a stored bundle within its budget."""
    try:
        seconds = _build_seconds(blobs[0])
    except BundleError as error:
        return {"message": str(error)}, []
    return {"message": _too_costly(seconds) if seconds > MAX_BUILD_SECONDS else ""}, []


JOBS: dict[str, Callable[[dict[str, Any], Blobs], JobResult]] = {
    "read": read_job,
    "check": check_job,
    "build": build_job,
}


def _documents(rows: Sequence[Sequence[str]]) -> list[Document]:
    return [Document(source, text) for source, text in rows]


def _keep(into: list[bytes], data: bytes) -> int:
    into.append(data)
    return len(into) - 1


_participant = lru_cache(maxsize=4_096)(participant_of)
_policy = lru_cache(maxsize=4_096)(policy_of)


def _view(participant: Participant, contracts: Mapping[str, bytes], why: Mapping[str, str]) -> ParticipantView:
    name = participant.metadata.full_name
    return ParticipantView(participant, contracts.get(name), why.get(name, ""))


def _confined(participant: Participant, rules: TargetRules) -> list[Finding]:
    """Return findings about targets that this orchestrator's own rules do not allow."""
    try:
        rules.check(participant.target)
    except ConfinementError as error:
        spec = participant.metadata.node.get("spec")
        node = (spec.get("target") if spec is not None else None) or participant.service_node
        hint = f"Its AMENDS_TARGETS and AMENDS_TARGET_SUFFIXES allow {', '.join(rules.forms)}."
        return [node.finding(codes.BAD_VALUE, f"This orchestrator does not call it: {error}.", hint)]
    return []


def _costly(compiled: CompiledSaga, result: CheckResult) -> Finding | None:
    """Return a finding about a saga that would take the orchestrator too long to load."""
    seconds = _build_seconds(compiled.bundle)
    if seconds <= MAX_BUILD_SECONDS:
        return None
    node = _saga_of(compiled, result).metadata.node
    return node.finding(codes.TOO_LARGE, _too_costly(seconds), "Split the saga into several.")


def _saga_of(compiled: CompiledSaga, result: CheckResult) -> Saga:
    wanted = (compiled.plan.namespace, compiled.plan.saga)
    return next(s for s in result.resources.sagas if (s.metadata.namespace, s.metadata.name) == wanted)


def _routes(saga: Saga, views: Sequence[ParticipantView], routes: Mapping[tuple[str, str], Pin]) -> dict[str, str]:
    """Return the services that an error-free saga calls, each with its Participant."""
    participants = [view.participant for view in views]
    namespace, found = saga.metadata.namespace, {}
    for step in saga.steps:
        for call in (step.call, step.compensate):
            if call is not None and call.service not in found:
                reached = resolve(call.service, namespace, participants, pin_of(saga, call.service, routes))
                assert isinstance(reached, Participant)
                found[call.service] = reached.metadata.full_name
    return found


def _build_seconds(bundle: bytes) -> float:
    began = time.process_time()
    load_bundle(bundle).warm()
    return time.process_time() - began


def _too_costly(seconds: float) -> str:
    return f"It takes {seconds:.1f} s of processor time to make it ready, more than {MAX_BUILD_SECONDS:g} s."


def _few(findings: list[Finding]) -> list[Finding]:
    """Return at most MAX_FINDINGS findings, errors first, and a last one that says how many were left out."""
    if len(findings) <= MAX_FINDINGS:
        return findings
    first, left = findings[0], len(findings) - MAX_FINDINGS + 1
    code = codes.TOO_LARGE
    message = f"There are {left:,} more findings, which are not shown."
    more = Finding(code.id, code.severity, message, "Mend these first.", Place(first.place.source))
    return [*findings[: MAX_FINDINGS - 1], more]


def _finding(finding: Finding) -> list[Any]:
    place = finding.place
    where = [place.source, place.line, place.column, place.excerpt, place.width]
    return [finding.code, finding.severity.value, finding.message, finding.hint, where]


def _names(resources: Resources) -> list[list[str]]:
    every = [item.metadata for item in resources.sagas]
    every += [item.metadata for item in resources.participants]
    every += [item.metadata for item in resources.policies]
    every += [item.metadata for item in resources.runs]
    return [[item.kind, item.namespace, item.name] for item in every]


def _methods(participants: Sequence[Participant], contracts: dict[str, bytes]) -> dict[str, list[dict[str, Any]]]:
    """Return the methods of the Participants in the texts whose contracts are known."""
    found = {}
    for participant in participants:
        name = participant.metadata.full_name
        data = contracts.get(name)
        if data is None:
            continue
        try:
            methods = ContractSet(parse_set(data)).methods(participant.service)
        except DescriptorError:
            continue  # there is a finding about it
        found[name] = [
            {
                "name": method.name,
                "kind": (facts := resolve_facts(method, participant.methods.get(method.name))[0]).kind.value,
                "compensated_by": facts.compensated_by,
                "unary": not method.client_streaming and not method.server_streaming,
            }
            for method in methods
        ]
    return found
