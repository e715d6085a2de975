"""DefinitionService: how Sagas, Participants and RetryPolicies reach the orchestrator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amends_chassis.errors import InvalidArgument
from amends_saga.compiled import CompiledSaga
from amends_saga.definition import Document

from amends.saga.v1 import definition_service_pb2 as pb
from amends.saga.v1.definition_service_pb2_grpc import DefinitionServiceServicer
from amends_orchestrator.api.definition_messages import (
    finding_messages,
    participant_message,
    policy_message,
    saga_message,
)
from amends_orchestrator.api.request_checks import check_request
from amends_orchestrator.definitions import store
from amends_orchestrator.definitions.changes import DefinitionChanges
from amends_orchestrator.definitions.registry import KnownParticipant, Registry
from amends_orchestrator.definitions.store import SagaRow
from amends_orchestrator.permissions import Role, current
from amends_orchestrator.runner.ports import DefinitionError

if TYPE_CHECKING:
    from amends_chassis.database import Pool

SERVICE = "amends.saga.v1.DefinitionService"
MOST_MANIFESTS = 200


class DefinitionApi(DefinitionServiceServicer):
    """Serves Sagas, Participants and RetryPolicies to people, the CLI and the operator."""

    def __init__(self, pool: Pool, registry: Registry, definitions: DefinitionChanges) -> None:
        self._pool = pool
        self._registry = registry
        self._definitions = definitions

    async def CheckSaga(self, request: pb.CheckSagaRequest, context: Any) -> pb.CheckSagaResponse:
        """Check resources and change nothing."""
        check_request(request)
        if len(request.manifests) > MOST_MANIFESTS:
            raise InvalidArgument("TOO_MANY_MANIFESTS", f"Send at most {MOST_MANIFESTS} manifests at once.")
        documents = [_document(manifest) for manifest in request.manifests]
        result = await self._definitions.check(documents, request.namespace or "default")
        return pb.CheckSagaResponse(findings=finding_messages(result.findings))

    async def ApplySaga(self, request: pb.ApplySagaRequest, context: Any) -> pb.ApplySagaResponse:
        """Put a Saga in force."""
        check_request(request)
        namespace = request.namespace or "default"
        applied, bundle = await self._definitions.apply_saga(_document(request.manifest), namespace)
        response = pb.ApplySagaResponse(accepted=applied.accepted, findings=finding_messages(applied.findings))
        row = self._registry.sagas.get(applied.name) if applied.name is not None else None
        if row is not None and bundle is not None:
            response.digest = bundle.digest
            response.saga.CopyFrom(saga_message(row, await self._compiled(row), []))
        return response

    async def ListSagas(self, request: pb.ListSagasRequest, context: Any) -> pb.ListSagasResponse:
        """List the Sagas in force."""
        check_request(request)
        await self._registry.reload()
        uses = await store.uses(self._pool)
        response = pb.ListSagasResponse()
        for (namespace, name), row in sorted(self._registry.sagas.items()):
            if request.namespace in ("", namespace) and request.name in ("", name):
                shown = saga_message(row, await self._compiled(row), uses.get((namespace, name), []))
                response.sagas.append(shown)
        return response

    async def DeleteSaga(self, request: pb.DeleteSagaRequest, context: Any) -> pb.DeleteSagaResponse:
        """Take a Saga out of force."""
        check_request(request)
        namespace = request.namespace or "default"
        return pb.DeleteSagaResponse(deleted=await self._definitions.delete("saga", namespace, request.name))

    async def ApplyParticipant(self, request: pb.ApplyParticipantRequest, context: Any) -> pb.ApplyParticipantResponse:
        """Put a Participant in force."""
        check_request(request)
        document = _document(request.manifest)
        namespace = request.namespace or "default"
        applied = await self._definitions.apply_participant(document, namespace, request.descriptors)
        response = pb.ApplyParticipantResponse(accepted=applied.accepted, findings=finding_messages(applied.findings))
        known = next((known for known in self._registry.participants if _name(known) == applied.name), None)
        if known is not None:
            response.participant.CopyFrom(await self._participant(known))
        return response

    async def ListParticipants(self, request: pb.ListParticipantsRequest, context: Any) -> pb.ListParticipantsResponse:
        """List the Participants in force."""
        check_request(request)
        await self._registry.reload()
        shown = [
            await self._participant(known)
            for known in self._registry.participants
            if request.namespace in ("", known.row.namespace)
        ]
        return pb.ListParticipantsResponse(participants=shown)

    async def DeleteParticipant(
        self, request: pb.DeleteParticipantRequest, context: Any
    ) -> pb.DeleteParticipantResponse:
        """Take a Participant out of force."""
        check_request(request)
        deleted = await self._definitions.delete("participant", request.namespace or "default", request.name)
        return pb.DeleteParticipantResponse(deleted=deleted)

    async def ApplyRetryPolicy(self, request: pb.ApplyRetryPolicyRequest, context: Any) -> pb.ApplyRetryPolicyResponse:
        """Put a RetryPolicy in force."""
        check_request(request)
        applied = await self._definitions.apply_policy(_document(request.manifest), request.namespace or "default")
        return pb.ApplyRetryPolicyResponse(accepted=applied.accepted, findings=finding_messages(applied.findings))

    async def ListRetryPolicies(
        self, request: pb.ListRetryPoliciesRequest, context: Any
    ) -> pb.ListRetryPoliciesResponse:
        """List the RetryPolicies in force."""
        check_request(request)
        await self._registry.reload()
        policies = self._registry.policies
        shown = [
            policy_message(known, [other for other in policies if other.row.namespace == known.row.namespace])
            for known in policies
            if request.namespace in ("", known.row.namespace)
        ]
        return pb.ListRetryPoliciesResponse(retry_policies=shown)

    async def DeleteRetryPolicy(
        self, request: pb.DeleteRetryPolicyRequest, context: Any
    ) -> pb.DeleteRetryPolicyResponse:
        """Take a RetryPolicy out of force."""
        check_request(request)
        deleted = await self._definitions.delete("retry_policy", request.namespace or "default", request.name)
        return pb.DeleteRetryPolicyResponse(deleted=deleted)

    async def _compiled(self, row: SagaRow) -> CompiledSaga | None:
        try:
            return await self._registry.pinned(row.digest)
        except DefinitionError:
            return None

    async def _participant(self, known: KnownParticipant) -> pb.ParticipantInfo:
        service = known.resource.service if known.resource is not None else ""
        sagas: list[str] = []
        for (namespace, name), row in self._registry.sagas.items():
            compiled = await self._compiled(row) if current().may(Role.VIEWER, namespace) else None
            if compiled is not None and any(step.action.service == service for step in compiled.plan.steps):
                sagas.append(f"{namespace}/{name}")
        return participant_message(known, sagas)


def _name(known: KnownParticipant) -> tuple[str, str]:
    return known.row.namespace, known.row.name


def _document(manifest: pb.Manifest) -> Document:
    return Document(manifest.source or "manifest", manifest.text)
