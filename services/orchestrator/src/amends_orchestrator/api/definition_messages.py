"""Turns resources in force and findings into messages. Called by DefinitionService."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from amends_saga.compiled import CompiledSaga
from amends_saga.findings import Finding, Severity

from amends.saga.v1 import definition_service_pb2 as pb
from amends_orchestrator.definitions.registry import KnownParticipant, KnownPolicy
from amends_orchestrator.definitions.store import SagaRow, VersionUse

_SEVERITIES = {Severity.ERROR: pb.SEVERITY_ERROR, Severity.WARNING: pb.SEVERITY_WARNING}


def finding_messages(findings: Iterable[Finding]) -> list[pb.Finding]:
    """Return the findings as messages, in the same order."""
    return [
        pb.Finding(
            code=finding.code,
            severity=_SEVERITIES[finding.severity],
            message=finding.message,
            hint=finding.hint,
            source=finding.place.source,
            line=finding.place.line,
            column=finding.place.column,
            excerpt=finding.place.excerpt,
            width=finding.place.width,
        )
        for finding in findings
    ]


def saga_message(row: SagaRow, compiled: CompiledSaga | None, uses: Sequence[VersionUse]) -> pb.SagaInfo:
    """Return a Saga, with the number of open runs on each of its versions."""
    info = pb.SagaInfo(
        namespace=row.namespace,
        name=row.name,
        digest=row.digest.hex(),
        ready=row.ready,
        message=row.message,
        manifest=row.manifest,
    )
    info.applied_at.FromDatetime(row.applied_at)
    for use in uses:
        info.digests.add(digest=use.digest.hex(), running=use.running, parked=use.parked)
    if compiled is not None:
        plan = compiled.plan
        info.steps.extend(step.name for step in plan.steps if not step.amendment)
        info.participants.extend(sorted({step.action.service for step in plan.steps}))
    return info


def participant_message(known: KnownParticipant, sagas: Iterable[str]) -> pb.ParticipantInfo:
    """Return a Participant as a message, with its methods."""
    row, resource = known.row, known.resource
    info = pb.ParticipantInfo(
        namespace=row.namespace,
        name=row.name,
        ready=row.ready,
        message=row.message,
        manifest=row.manifest,
        sagas=sorted(sagas),
    )
    if resource is None:
        info.ready, info.message = False, "this version of the orchestrator cannot read it"
        return info
    info.service, info.target = resource.service, resource.target
    for method in row.methods or ():
        info.methods.add(
            name=method.name,
            kind=method.kind,
            compensated_by=method.compensated_by,
            callable=method.unary and resource.allows(method.name),
        )
    return info


def policy_message(known: KnownPolicy, all_of_namespace: Sequence[KnownPolicy]) -> pb.RetryPolicyInfo:
    """Return a RetryPolicy, with the policies that contradict it."""
    row, resource = known.row, known.resource
    info = pb.RetryPolicyInfo(namespace=row.namespace, name=row.name, manifest=row.manifest)
    if resource is None:
        return info
    info.participants.extend(resource.selector.participants)
    info.methods.extend(resource.selector.methods)
    info.attempts = resource.policy.attempts
    info.timeout.FromTimedelta(resource.policy.timeout)
    own = resource.metadata.full_name
    others = (other.resource for other in all_of_namespace if other.resource is not None)
    conflicts = {other.metadata.full_name for other in others if other.selector.ties_with(resource.selector)} - {own}
    info.conflicts.extend(sorted(conflicts))
    return info
