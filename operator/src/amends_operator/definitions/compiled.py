"""Compiles the RetryPolicies of a namespace into the one ConfigMap that its services mount.

The clients of every service read it again when the mounted file changes (amends_chassis.policies). What the
orchestrator refused is left out; what is suspended stays as it was.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import structlog

from amends_operator.definitions.mounting import Pods
from amends_operator.kube.client import APPLY, ApiError, Client, NotFoundError
from amends_operator.kube.objects import Body, Objects, ResourceKind
from amends_operator.queue import RetryLaterError

KEY = "policies.json"
FORMAT = 1
COMPILED = "policies.compiled"
NOT_OURS = "policies.name_taken"
MANAGED_BY = "app.kubernetes.io/managed-by"
OPERATOR = "amends-operator"
_log = structlog.get_logger(__name__)


class CompiledPolicies:
    """Writes the ConfigMaps of compiled policies."""

    def __init__(self, client: Client, objects: Objects, name: str, pods: Pods | None) -> None:
        """Touch these `pods` after every change; None leaves it to their kubelets."""
        self._pods = pods
        self._client = client
        self._objects = objects
        self._name = name

    async def reconcile(self, namespace: str) -> timedelta | None:
        """Make the ConfigMap of a namespace what its policies are.

        Raises RetryLaterError when the API server is away.
        """
        path = f"/api/v1/namespaces/{namespace}/configmaps/{self._name}"
        policies = list(self._objects.of(ResourceKind.POLICY, namespace))
        try:
            found = await self._found(path)
            if found is None and not policies:
                return None
            labels = ((found or {}).get("metadata") or {}).get("labels") or {}
            if found is not None and labels.get(MANAGED_BY) != OPERATOR:
                _log.error(NOT_OURS, namespace=namespace, config_map=self._name)
                return None
            before = _before(found)
            entries = [entry for _, body in policies if (entry := _entry(body, before)) is not None]
            entries.sort(key=lambda entry: str(entry["name"]))
            text = json.dumps({"version": FORMAT, "policies": entries}, indent=1, sort_keys=True) + "\n"
            if found is None or (found.get("data") or {}).get(KEY) != text:
                await self._client.call("PATCH", f"{path}?fieldManager={OPERATOR}&force=true", self._made(text), APPLY)
                _log.info(COMPILED, namespace=namespace, policies=len(entries))
            if self._pods is not None:
                await self._pods.tell(namespace, text)
        except ApiError as error:
            raise RetryLaterError(str(error)) from None
        return None

    async def _found(self, path: str) -> Body | None:
        try:
            return await self._client.call("GET", path)
        except NotFoundError:
            return None

    def _made(self, text: str) -> Body:
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": self._name,
                "labels": {MANAGED_BY: OPERATOR, "app.kubernetes.io/part-of": "amends"},
            },
            "data": {KEY: text},
        }


def _before(found: Body | None) -> dict[str, dict[str, Any]]:
    try:
        entries = json.loads(((found or {}).get("data") or {}).get(KEY, "{}")).get("policies", [])
        return {entry["name"]: entry for entry in entries}
    except (ValueError, AttributeError, KeyError, TypeError):
        return {}


def _entry(body: Body, before: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    metadata, status = body["metadata"], body.get("status") or {}
    name = f"{metadata['namespace']}/{metadata['name']}"
    current = status.get("observedGeneration") == metadata.get("generation")
    if (body.get("spec") or {}).get("suspend") or status.get("phase") in (None, "Pending") or not current:
        return before.get(name)
    if status.get("phase") == "Refused":
        return before.get(name)
    return {"name": name} | {key: value for key, value in body["spec"].items() if key != "suspend"}
