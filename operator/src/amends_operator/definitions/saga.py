"""Reconciles Sagas: asks the orchestrator to check and apply them, and shows how many runs are on which version."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from amends_chassis.text import escape

from amends.saga.v1 import definition_service_pb2 as pb
from amends_operator.definitions.base import STAYS, DefinitionReconciler, MissingDescriptorsError, Tools, refused
from amends_operator.definitions.findings import condition_message, errors_of, reason_of, status_entries, unresolved
from amends_operator.definitions.manifest import manifest_of
from amends_operator.kube.conditions import Condition
from amends_operator.kube.objects import Body, Key, ResourceKind, asks_again, generation_of
from amends_operator.kube.statuses import carried
from amends_operator.orchestrator import OrchestratorRefusedError

_DIGESTS = 100
_IN_FORCE = ("observedGeneration", "phase", "callable")


class SagaReconciler(DefinitionReconciler):
    """Brings Sagas into force in the orchestrator."""

    stays = ("digest", "steps", "participants", "runs", "digests")

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self._checked: dict[Key, int] = {}
        """What stood around each Saga when it was checked last."""

    async def _apply(self, key: Key, body: Body) -> timedelta | None:
        try:
            return await self._bring(key, body, manifest_of(key, body, await self._filled(key, body)))
        except MissingDescriptorsError as error:
            wanted = [Condition(kind, False, "DescriptorsNotFound", str(error)) for kind in ("ResolvedRefs", "Ready")]
        except OrchestratorRefusedError as error:
            wanted = refused(error)
        await self._say(key, body, {"phase": "Refused", **carried(body, self.stays)}, wanted)
        return self._resync

    async def _bring(self, key: Key, body: Body, manifest: pb.Manifest) -> timedelta | None:
        """Hand over what is new, check again when something around it is new, and else only count runs."""
        stood, info = self._around(key.namespace), await self._info(key)
        same = info is not None and info.manifest == manifest.text
        settled = same and info is not None and info.ready and not asks_again(body)
        findings = (body.get("status") or {}).get("findings", [])
        if not settled or not self._known(body) or self._checked.get(key) != stood:
            checked = await self._orchestrator.check(manifest, key.namespace)
            if errors_of(checked):
                return await (self._not_ready if same else self._refused)(key, body, checked, info)
            findings = status_entries(checked)
            if not settled:
                answer = await self._orchestrator.apply_saga(manifest, key.namespace)
                if not answer.accepted:
                    return await self._refused(key, body, list(answer.findings), info)
                findings, info = status_entries(answer.findings), await self._info(key) or answer.saga
        assert info is not None
        self._checked[key] = stood
        if not info.ready:
            return await self._not_ready(key, body, [], info)
        return await self._ready(key, body, info, findings)

    def _around(self, namespace: str) -> int:
        """Return a number that changes with the Participants, and the namespace's RetryPolicies, in force."""
        others = [*self._objects.of(ResourceKind.PARTICIPANT), *self._objects.of(ResourceKind.POLICY, namespace)]
        statuses = [(key, body.get("status") or {}) for key, body in others]
        return hash(frozenset((key, *map(status.get, _IN_FORCE)) for key, status in statuses))

    def _known(self, body: Body) -> bool:
        status = body.get("status") or {}
        return bool(status.get("phase") == "Accepted" and status.get("observedGeneration") == generation_of(body))

    async def _info(self, key: Key) -> pb.SagaInfo | None:
        found = await self._orchestrator.sagas(key.namespace, key.name)
        return found[0] if found else None

    async def _refused(
        self, key: Key, body: Body, findings: list[pb.Finding], info: pb.SagaInfo | None
    ) -> timedelta | None:
        errors, outside = errors_of(findings), unresolved(findings)
        reason, message = reason_of(errors), condition_message(errors)
        if info is not None:
            message += STAYS
        wanted = [
            Condition("Accepted", False, reason, message),
            _refs(outside),
            Condition("Ready", False, reason, message),
        ]
        fields = {
            "phase": "Refused",
            "findings": status_entries(findings),
            **(_facts(info) if info is not None else {}),
        }
        await self._say(key, body, fields, wanted)
        return self._resync

    async def _not_ready(
        self, key: Key, body: Body, findings: list[pb.Finding], info: pb.SagaInfo | None
    ) -> timedelta | None:
        """Show a Saga that is in force while what it refers to has changed."""
        assert info is not None
        errors = errors_of(findings)
        reason, message = (
            (reason_of(errors), condition_message(errors)) if errors else ("ContractChanged", escape(info.message))
        )
        wanted = [
            Condition("Accepted", True, "Accepted", f"in force for new runs as {info.digest[:12]}"),
            Condition("ResolvedRefs", False, reason, message),
            Condition("Ready", False, reason, message),
        ]
        fields = {"phase": "NotReady", "findings": status_entries(findings), **_facts(info)}
        await self._say(key, body, fields, wanted)
        return self._resync

    async def _ready(self, key: Key, body: Body, info: pb.SagaInfo, findings: list[dict[str, Any]]) -> timedelta | None:
        message = f"in force for new runs as {info.digest[:12]}"
        wanted = [
            Condition("Accepted", True, "Accepted", message),
            Condition("ResolvedRefs", True, "Resolved", "every service, method and message was found"),
            Condition("Ready", True, "Accepted", message),
        ]
        was = carried(body, ("digest", "phase"))
        fields = {"phase": "Accepted", "findings": findings, **_facts(info)}
        await self._say(key, body, fields, wanted)
        if was.get("digest") != info.digest or was.get("phase") != "Accepted":
            waiting = (
                run
                for run, seen in self._objects.of(ResourceKind.RUN, key.namespace)
                if "endedAt" not in (seen.get("status") or {}) and (seen.get("spec") or {}).get("saga") == key.name
            )
            self._look_again([*waiting, *(other for kind in _USED for other, _ in self._objects.of(kind))])
        return self._resync

    async def _in_force(self, key: Key) -> str | None:
        info = await self._info(key)
        return info.manifest if info is not None else None

    async def _take_out(self, key: Key) -> None:
        await self._orchestrator.delete_saga(key.namespace, key.name)
        self._checked.pop(key, None)


_USED = (ResourceKind.PARTICIPANT, ResourceKind.POLICY)


def _refs(outside: list[pb.Finding]) -> Condition:
    if outside:
        return Condition("ResolvedRefs", False, reason_of(outside), condition_message(outside))
    return Condition("ResolvedRefs", True, "Resolved", "every service, method and message was found")


def _facts(info: pb.SagaInfo) -> dict[str, Any]:
    """Return what the status says of the version in force, and of the runs on each version."""
    uses = sorted(info.digests, key=lambda use: (use.digest != info.digest, use.digest))[:_DIGESTS]
    return {
        "digest": info.digest,
        "steps": len(info.steps),
        "participants": list(info.participants),
        "runs": {
            "running": sum(use.running for use in info.digests),
            "parked": sum(use.parked for use in info.digests),
        },
        "digests": [
            {
                "digest": use.digest,
                "current": use.digest == info.digest,
                "running": use.running,
                "parked": use.parked,
            }
            for use in uses
        ],
    }
