"""Reconciles Participants: hands them over with their descriptors, shows their methods and the sagas that call them.

Which addresses are called at all is for the orchestrator to say; its refusal is shown here, word for word.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

from amends_chassis.text import escape

from amends.saga.v1 import definition_service_pb2 as pb
from amends_operator.definitions.base import DefinitionReconciler, MissingDescriptorsError, Tools, refusal, refused
from amends_operator.definitions.findings import status_entries
from amends_operator.definitions.manifest import manifest_of
from amends_operator.kube.conditions import Condition
from amends_operator.kube.objects import Body, Key, ResourceKind, asks_again
from amends_operator.kube.statuses import carried
from amends_operator.orchestrator import OrchestratorRefusedError
from amends_operator.queue import RetryLaterError

_METHODS = 500
_SAGAS = 100


class ParticipantReconciler(DefinitionReconciler):
    """Brings Participants into force."""

    stays = ("methods", "callable", "usedBy", "usedByCount")

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self._given: dict[Key, str] = {}
        """Digests of the descriptors handed over."""

    async def _apply(self, key: Key, body: Body) -> timedelta | None:
        reference = self._reference(body["spec"])
        try:
            given = await self._descriptors(key.namespace, reference) if reference is not None else b""
            manifest = manifest_of(key, body)
            digest = hashlib.sha256(given).hexdigest()
            info = await self._info(key)
            known = info is not None and info.manifest == manifest.text and info.ready and not asks_again(body)
            if known and (not given or self._given.get(key) == digest):
                findings = (body.get("status") or {}).get("findings", [])
            else:
                answer = await self._orchestrator.apply_participant(manifest, key.namespace, given)
                if not answer.accepted:
                    return await self._refused(key, body, list(answer.findings), in_force=info is not None)
                self._given[key] = digest
                findings, info = status_entries(answer.findings), answer.participant
        except MissingDescriptorsError as error:
            wanted = [Condition(kind, False, "DescriptorsNotFound", str(error)) for kind in ("ResolvedRefs", "Ready")]
            fields = {"phase": "Refused", **carried(body, self.stays)}
            await self._say(key, body, fields, wanted)
            raise RetryLaterError(str(error)) from None
        except OrchestratorRefusedError as error:
            await self._say(key, body, {"phase": "Refused", **carried(body, self.stays)}, refused(error))
            return self._resync
        assert info is not None
        return await self._show(key, body, info, findings)

    async def _info(self, key: Key) -> pb.ParticipantInfo | None:
        found = await self._orchestrator.participants(key.namespace)
        return next((info for info in found if info.name == key.name), None)

    async def _refused(self, key: Key, body: Body, findings: list[pb.Finding], *, in_force: bool) -> timedelta | None:
        fields = {
            "phase": "Refused",
            "findings": status_entries(findings),
            **(carried(body, self.stays) if in_force else {}),
        }
        await self._say(key, body, fields, refusal(findings, in_force=in_force))
        return self._resync

    async def _show(
        self, key: Key, body: Body, info: pb.ParticipantInfo, findings: list[dict[str, Any]]
    ) -> timedelta | None:
        accepted = Condition("Accepted", True, "Accepted", "in force")
        if info.ready:
            found = f"{len(info.methods)} methods were found"
            wanted = [
                accepted,
                Condition("ResolvedRefs", True, "Resolved", found),
                Condition("Ready", True, "Accepted", found),
            ]
        else:
            why = escape(info.message)
            wanted = [
                accepted,
                *(Condition(kind, False, "DescriptorsNotKnown", why) for kind in ("ResolvedRefs", "Ready")),
            ]
        methods = [_method(method) for method in info.methods[:_METHODS]]
        fields = {
            "phase": "Accepted" if info.ready else "NotReady",
            "methods": methods,
            "callable": sum(method.callable for method in info.methods),
            "usedBy": list(info.sagas)[:_SAGAS],
            "usedByCount": len(info.sagas),
            "findings": findings,
        }
        before = carried(body, ("phase", "methods", "observedGeneration"))
        await self._say(key, body, fields, wanted)
        generation = body["metadata"]["generation"]
        if before != {"phase": fields["phase"], "methods": methods, "observedGeneration": generation}:
            self._look_again(saga for saga, _ in self._objects.of(ResourceKind.SAGA))
        if not info.ready:
            raise RetryLaterError(info.message)
        return self._resync

    async def _in_force(self, key: Key) -> str | None:
        info = await self._info(key)
        return info.manifest if info is not None else None

    async def _take_out(self, key: Key) -> None:
        await self._orchestrator.delete_participant(key.namespace, key.name)
        self._given.pop(key, None)
        self._look_again(saga for saga, _ in self._objects.of(ResourceKind.SAGA))


def _method(method: pb.MethodInfo) -> dict[str, Any]:
    shown_method: dict[str, Any] = {"name": method.name, "kind": method.kind, "callable": method.callable}
    if method.compensated_by:
        shown_method["compensatedBy"] = method.compensated_by
    return shown_method
