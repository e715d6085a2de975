"""Reconciles Choreographies: hands them on to the monitor, and shows how many of their flows are where."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from amends.monitor.v1 import monitor_service_pb2 as pb
from amends_operator.definitions.base import DefinitionReconciler, MissingDescriptorsError, Tools, refusal, refused
from amends_operator.definitions.findings import status_entries
from amends_operator.definitions.manifest import manifest_of
from amends_operator.kube.conditions import Condition
from amends_operator.kube.objects import Body, Key, asks_again
from amends_operator.kube.statuses import carried
from amends_operator.monitor import MonitorClient
from amends_operator.orchestrator import AwayError, OrchestratorRefusedError

NO_MONITOR = "this operator knows no monitor: set AMENDS_MONITOR_TARGET"
_TOPICS = 100


class ChoreographyReconciler(DefinitionReconciler):
    """Has Choreographies watched."""

    stays = ("digest", "flows", "unreadTopics")
    away = "MonitorAway"

    def __init__(self, tools: Tools, monitor: MonitorClient | None) -> None:
        super().__init__(tools)
        self._monitor = monitor

    async def _apply(self, key: Key, body: Body) -> timedelta | None:
        try:
            manifest = manifest_of(key, body, await self._filled(key, body))
            info, findings = await self._info(key), (body.get("status") or {}).get("findings", [])
            if info is None or info.manifest != manifest.text or asks_again(body):
                answer = await self._known().apply(manifest, key.namespace)
                if not answer.accepted:
                    return await self._refused(key, body, answer, info)
                findings, info = status_entries(answer.findings), await self._info(key) or answer.choreography
        except MissingDescriptorsError as error:
            wanted = [Condition(kind, False, "DescriptorsNotFound", str(error)) for kind in ("Accepted", "Ready")]
        except OrchestratorRefusedError as error:
            wanted = refused(error)
        else:
            fields = {"phase": "Accepted", "findings": findings, **_facts(info)}
            await self._say(key, body, fields, _conditions(info))
            return self._resync
        await self._say(key, body, {"phase": "Refused", **carried(body, self.stays)}, wanted)
        return self._resync

    async def _refused(
        self, key: Key, body: Body, answer: pb.ApplyChoreographyResponse, info: pb.ChoreographyInfo | None
    ) -> timedelta | None:
        fields: dict[str, Any] = {"phase": "Refused", "findings": status_entries(answer.findings)}
        if info is not None:
            fields |= _facts(info)
        await self._say(key, body, fields, refusal(list(answer.findings), in_force=info is not None))
        return self._resync

    def _known(self) -> MonitorClient:
        if self._monitor is None:
            raise AwayError(NO_MONITOR)
        return self._monitor

    async def _info(self, key: Key) -> pb.ChoreographyInfo | None:
        found = await self._known().choreographies(key.namespace, key.name)
        return found[0] if found else None

    async def _in_force(self, key: Key) -> str | None:
        info = await self._info(key) if self._monitor is not None else None
        return info.manifest if info is not None else None

    async def _take_out(self, key: Key) -> None:
        await self._known().delete(key.namespace, key.name)


def _facts(info: pb.ChoreographyInfo) -> dict[str, Any]:
    flows = info.flows
    return {
        "digest": info.digest,
        "flows": {
            "running": flows.running,
            "late": flows.late,
            "endedWell": flows.ended_well,
            "endedUndone": flows.ended_undone,
            "contradictory": flows.contradictory,
        },
        "unreadTopics": list(info.unread_topics)[:_TOPICS],
    }


def _conditions(info: pb.ChoreographyInfo) -> list[Condition]:
    message = f"watched as {info.digest[:12]}"
    found = [Condition("Accepted", True, "Accepted", message), _in_time(info.flows)]
    if info.unread_topics:
        unread = f"the monitor cannot read {', '.join(info.unread_topics)}: their events look missing"
        return [*found, Condition("Ready", False, "TopicsUnread", unread)]
    return [*found, Condition("Ready", True, "Accepted", message)]


def _in_time(flows: pb.FlowCounts) -> Condition:
    if flows.contradictory:
        said = f"the events of {flows.contradictory} exclude each other: `kubectl amends flows --state contradictory`"
        return Condition("InTime", False, "Contradictory", said)
    if flows.late:
        said = f"in {flows.late} an event is overdue: `kubectl amends flows --state late`"
        return Condition("InTime", False, "Late", said)
    return Condition("InTime", True, "InTime", "no flow is late")
