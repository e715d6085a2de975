"""Tells the kubelet of pods that mount the compiled policies to look now, by a change of an annotation of theirs.

Without it a changed ConfigMap reaches a pod within the kubelet's own period, ten seconds to a minute. Off by default:
whoever may patch pods may change what they run. See AMENDS_TOUCH_PODS. Called by `compiled`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from typing import Any

import structlog

from amends_operator.kube.client import MERGE, ApiError, Client, NotFoundError
from amends_operator.kube.objects import GROUP, Body

ANNOTATION = f"{GROUP}/policy"
TOUCHED = "policies.pods_touched"
NOT_TOUCHED = "policies.pods_not_touched"
AT_ONCE = 8
_log = structlog.get_logger(__name__)


class Pods:
    """The pods that mount one ConfigMap, in every namespace."""

    def __init__(self, client: Client, config_map: str) -> None:
        self._client = client
        self._config_map = config_map
        self._told: dict[str, str] = {}
        """The version that the pods of a namespace were given last."""

    async def tell(self, namespace: str, text: str) -> None:
        """Annotate the pods that mount it with a digest of `text`, once for each; a refusal costs only time."""
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        if self._told.get(namespace) == digest:
            return
        try:
            waiting = iter([name async for name in self._behind(namespace, digest)])
            touched = await asyncio.gather(*(self._some(namespace, waiting, digest) for _ in range(AT_ONCE)))
        except ApiError as error:  # the kubelet will look by itself
            _log.warning(NOT_TOUCHED, namespace=namespace, why=str(error))
            return
        self._told[namespace] = digest
        if sum(touched):
            _log.info(TOUCHED, namespace=namespace, pods=sum(touched))

    async def _behind(self, namespace: str, digest: str) -> Any:
        """Find the names of the pods that mount it and do not have this digest."""
        async for pod in self._client.pages(f"/api/v1/namespaces/{namespace}/pods"):
            metadata = pod["metadata"]
            known = (metadata.get("annotations") or {}).get(ANNOTATION)
            if known != digest and "deletionTimestamp" not in metadata and self._mounts(pod):
                yield metadata["name"]

    def _mounts(self, pod: Body) -> bool:
        for volume in pod["spec"].get("volumes") or ():
            sources = [volume, *((volume.get("projected") or {}).get("sources") or ())]
            if any((source.get("configMap") or {}).get("name") == self._config_map for source in sources):
                return True
        return False

    async def _some(self, namespace: str, waiting: Iterator[str], digest: str) -> int:
        count = 0
        for name in waiting:
            patch = {"metadata": {"annotations": {ANNOTATION: digest}}}
            try:
                await self._client.call("PATCH", f"/api/v1/namespaces/{namespace}/pods/{name}", patch, MERGE)
            except NotFoundError:
                continue  # it has gone, and with it the need
            count += 1
        return count
