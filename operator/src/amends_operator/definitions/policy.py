"""Reconciles RetryPolicies: hands them over, and shows conflicts on both sides and the sagas that they matter to."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from amends.saga.v1 import definition_service_pb2 as pb
from amends_operator.definitions.base import DefinitionReconciler, refusal, refused
from amends_operator.definitions.findings import status_entries
from amends_operator.definitions.manifest import manifest_of
from amends_operator.kube.conditions import Condition
from amends_operator.kube.objects import Body, Key, ResourceKind, asks_again
from amends_operator.kube.statuses import carried
from amends_operator.orchestrator import OrchestratorRefusedError

_MOST = 100


class PolicyReconciler(DefinitionReconciler):
    """Brings RetryPolicies into force."""

    stays = ("backoff", "usedBy", "usedByCount", "conflicts")

    async def _apply(self, key: Key, body: Body) -> timedelta | None:
        manifest = manifest_of(key, body)
        before = carried(body, ("phase", "observedGeneration"))
        try:
            info = await self._info(key)
            findings = (body.get("status") or {}).get("findings", [])
            if info is None or info.manifest != manifest.text or asks_again(body):
                answer = await self._orchestrator.apply_policy(manifest, key.namespace)
                if not answer.accepted:
                    return await self._refused(key, body, list(answer.findings), in_force=info is not None)
                findings = status_entries(answer.findings)
                info = await self._info(key)
        except OrchestratorRefusedError as error:
            await self._say(key, body, {"phase": "Refused", **carried(body, self.stays)}, refused(error))
            return self._resync
        conflicts = sorted(info.conflicts)[:_MOST] if info is not None else []
        used = await self._used_by(key, body)
        fields: dict[str, Any] = {
            "phase": "Conflicted" if conflicts else "Accepted",
            "backoff": _backoff(body["spec"]),
            "usedBy": used[:_MOST],
            "usedByCount": len(used),
            "conflicts": conflicts,
            "findings": findings,
        }
        await self._say(key, body, fields, _conditions(conflicts))
        if before != {"phase": fields["phase"], "observedGeneration": body["metadata"]["generation"]}:
            self._look_at_others(key)
        return self._resync

    async def _refused(self, key: Key, body: Body, findings: list[pb.Finding], *, in_force: bool) -> timedelta | None:
        fields = {
            "phase": "Refused",
            "findings": status_entries(findings),
            **(carried(body, self.stays) if in_force else {}),
        }
        await self._say(key, body, fields, refusal(findings, in_force=in_force))
        return self._resync

    def _look_at_others(self, key: Key) -> None:
        """Have other policies and sagas looked at: conflicts show on both sides, and deadlines may no longer fit."""
        others = [other for other, _ in self._objects.of(ResourceKind.POLICY, key.namespace) if other != key]
        self._look_again([*others, *(saga for saga, _ in self._objects.of(ResourceKind.SAGA, key.namespace))])

    async def _used_by(self, key: Key, body: Body) -> list[str]:
        selected = set((body["spec"].get("selector") or {}).get("participants") or [])
        every = not selected or "*" in selected
        sagas = await self._orchestrator.sagas(key.namespace)
        return sorted(
            f"{saga.namespace}/{saga.name}" for saga in sagas if every or selected.intersection(saga.participants)
        )

    async def _info(self, key: Key) -> pb.RetryPolicyInfo | None:
        found = await self._orchestrator.policies(key.namespace)
        return next((info for info in found if info.name == key.name), None)

    async def _in_force(self, key: Key) -> str | None:
        info = await self._info(key)
        return info.manifest if info is not None else None

    async def _take_out(self, key: Key) -> None:
        await self._orchestrator.delete_policy(key.namespace, key.name)
        self._look_at_others(key)


def _conditions(conflicts: list[str]) -> list[Condition]:
    accepted = Condition("Accepted", True, "Accepted", "in force from the next attempt on")
    if not conflicts:
        clear = Condition("Conflicted", False, "NoConflict", "no other policy selects the same as specifically")
        return [accepted, clear, Condition("Ready", True, "Accepted", "in force from the next attempt on")]
    they = "selects" if len(conflicts) == 1 else "select"
    message = f"{', '.join(conflicts)} {they} the same just as specifically: say more exactly what each is for"
    return [
        accepted,
        Condition("Conflicted", True, "SelectedTwice", message),
        Condition("Ready", False, "SelectedTwice", message),
    ]


def _backoff(spec: dict[str, Any]) -> str:
    given = spec.get("backoff") or {}
    return f"{given.get('initial', '100ms')}..{given.get('max', '5s')} x{given.get('multiplier', 2):g}"
