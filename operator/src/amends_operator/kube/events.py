"""Events for people who look at `kubectl describe`: one for each transition, written once and never waited for.

kopf's own posting is off, for it makes an event of every line of the log.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import structlog

from amends_operator.kube.client import ApiError, Client, ConflictError
from amends_operator.kube.objects import API_VERSION, NAMES, Body, Key

EVENT_LOST = "kubernetes.event_lost"
LONGEST = 1000
_log = structlog.get_logger(__name__)


class Events:
    """Writes Events of the operator."""

    def __init__(self, client: Client, instance: str) -> None:
        self._client = client
        self._instance = instance
        self._told: set[str] = set()

    async def tell(
        self, key: Key, body: Body, reason: str, message: str, *, warning: bool = False, once: bool = False
    ) -> None:
        """Write an event; one that is found again at every look is told `once` for an object."""
        metadata = body["metadata"]
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        said = f"{metadata['uid']}/{reason}/{message}{'' if once else now}"
        if once and said in self._told:
            return
        if once:
            self._told.add(said)
        event: dict[str, Any] = {
            "metadata": {
                "name": f"{key.name}.{hashlib.sha256(said.encode()).hexdigest()[:16]}",
                "namespace": key.namespace,
            },
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": NAMES[key.kind],
                "namespace": key.namespace,
                "name": key.name,
                "uid": metadata["uid"],
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "message": message[:LONGEST] or reason,
            "firstTimestamp": now[:19] + "Z",
            "lastTimestamp": now[:19] + "Z",
            "count": 1,
            "source": {"component": "amends-operator"},
            "reportingComponent": "amends.dev/operator",
            "reportingInstance": self._instance[:128],
        }
        try:
            await self._client.call("POST", f"/api/v1/namespaces/{key.namespace}/events", event)
        except ConflictError:
            return  # it is there already: a former try was cut off after it
        except ApiError as error:
            _log.warning(EVENT_LOST, object=key.full_name, reason=reason, why=str(error))
