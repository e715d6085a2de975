"""The common part of the four reconcilers of definitions: leave alone, wait for the orchestrator, take out of force.

Called by the work queue, one call at a time for each object.
"""

from __future__ import annotations

import base64
import binascii
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import structlog
from amends_chassis.text import escape

from amends.saga.v1 import definition_service_pb2 as pb
from amends_operator.definitions.findings import condition_message, errors_of, reason_of
from amends_operator.definitions.manifest import is_ours
from amends_operator.kube.client import ApiError, Client, NotFoundError
from amends_operator.kube.conditions import Condition
from amends_operator.kube.objects import HANDLED, Body, Key, Objects, asked_of, generation_of
from amends_operator.kube.statuses import AWAY, Statuses, carried
from amends_operator.orchestrator import AwayError, OrchestratorClient, OrchestratorRefusedError
from amends_operator.queue import RetryLaterError

TAKEN_OUT = "definitions.taken_out"
CONTINUED = "definitions.still_there"
UNSAID = "definitions.status_postponed"
STAYS = "\nThe version that was in force before stays in force."
_log = structlog.get_logger(__name__)


class MissingDescriptorsError(Exception):
    """The ConfigMap that a resource names is not there, or holds no such key."""

    def __init__(self, message: str) -> None:
        super().__init__(escape(message))  # it names what somebody has written


@dataclass(frozen=True, slots=True)
class Tools:
    """The clients and limits with which the reconcilers of definitions work."""

    client: Client
    objects: Objects
    statuses: Statuses
    orchestrator: OrchestratorClient
    resync: timedelta
    """How often what is in force is compared again."""
    look_again: Callable[[Iterable[Key]], None]
    """Asks for another look at these objects soon, because something that they depend on may have changed."""


class DefinitionReconciler(ABC):
    """Brings one kind of definition into force and says what became of it."""

    stays: tuple[str, ...] = ()
    """Fields of the status that stay while nothing can be asked."""
    away = AWAY
    """The reason of the conditions meanwhile."""

    def __init__(self, tools: Tools) -> None:
        self._client = tools.client
        self._objects = tools.objects
        self._statuses = tools.statuses
        self._orchestrator = tools.orchestrator
        self._resync = tools.resync
        self._look_again = tools.look_again

    async def reconcile(self, key: Key) -> timedelta | None:
        """Do what the object as it is now needs; return after how long to look again.

        Raises RetryLaterError when the orchestrator or the API server is away.
        """
        body = self._objects.get(key)
        try:
            if body is None:
                await self._vanished(key)
                return None
            if (body.get("spec") or {}).get("suspend"):
                await self._suspended(key, body)
                return None
            return await self._apply(key, body)
        except AwayError as error:
            if body is not None:
                await self._waiting(key, body, str(error))
            raise RetryLaterError(str(error)) from None
        except NotFoundError:
            return None  # deleted meanwhile; the watch, or the next list, says so
        except ApiError as error:
            raise RetryLaterError(str(error)) from None

    @abstractmethod
    async def _apply(self, key: Key, body: Body) -> timedelta | None:
        """Bring the object into force and write its status."""

    @abstractmethod
    async def _in_force(self, key: Key) -> str | None:
        """Return the text that is in force under this name, None when there is none."""

    @abstractmethod
    async def _take_out(self, key: Key) -> None:
        """Delete the definition of this name from the orchestrator."""

    async def _vanished(self, key: Key) -> None:
        """Delete the definition of an object that is gone, once the API server itself says that it is."""
        text = await self._in_force(key)
        if text is None or not is_ours(text):
            return
        try:
            self._objects.seen(key.kind, await self._client.read(key))
            _log.info(CONTINUED, kind=key.kind.value, object=key.full_name)
        except NotFoundError:
            await self._take_out(key)
            _log.info(TAKEN_OUT, kind=key.kind.value, object=key.full_name)

    async def _say(self, key: Key, body: Body, fields: Mapping[str, Any], wanted: Sequence[Condition]) -> None:
        """Write what this look has found, and an event when the object becomes ready or ceases to be."""
        await self._statuses.put(key, body, {**fields, HANDLED: asked_of(body)}, wanted, tell=("Ready",))

    async def _suspended(self, key: Key, body: Body) -> None:
        message = "spec.suspend is true: what is in force stays as it is"
        fields = {"phase": "Suspended", **carried(body, (*self.stays, HANDLED))}
        await self._statuses.put(key, body, fields, [Condition("Ready", None, "Suspended", message)])

    async def _waiting(self, key: Key, body: Body, why: str) -> None:
        """Report that the orchestrator does not have this generation yet; keep what the status shows already."""
        status = body.get("status") or {}
        if status.get("observedGeneration") == generation_of(body):
            return
        fields = {"phase": "Pending", **carried(body, (*self.stays, HANDLED))}
        wanted = [Condition("Ready", None, self.away, why), Condition("Reconciling", True, self.away, why)]
        try:
            await self._statuses.put(key, body, fields, wanted)
        except ApiError as error:  # the next attempt says it
            _log.debug(UNSAID, kind=key.kind.value, object=key.full_name, why=str(error))

    async def _filled(self, key: Key, body: Body) -> dict[str, Any]:
        """Return the spec with the ConfigMap's descriptors in it, because nobody else reads ConfigMaps.

        Raises MissingDescriptorsError, ApiError.
        """
        spec: dict[str, Any] = dict(body["spec"])
        reference = self._reference(spec)
        if reference is not None:
            data = await self._descriptors(key.namespace, reference)
            spec["descriptors"] = {"inline": base64.b64encode(data).decode()}
        return spec

    def _reference(self, spec: Mapping[str, Any]) -> Mapping[str, str] | None:
        """Return the ConfigMap that a spec names; a malformed name is left to the checker."""
        descriptors = spec.get("descriptors")
        found = descriptors.get("configMapRef") if isinstance(descriptors, Mapping) else None
        if isinstance(found, Mapping) and all(isinstance(found.get(name), str) for name in ("name", "key")):
            return found
        return None

    async def _descriptors(self, namespace: str, reference: Mapping[str, str]) -> bytes:
        """Return the FileDescriptorSet in a ConfigMap's key. Raises MissingDescriptorsError, ApiError."""
        name, key = reference["name"], reference["key"]
        try:
            found = await self._client.call("GET", f"/api/v1/namespaces/{namespace}/configmaps/{quote(name, safe='')}")
        except NotFoundError:
            raise MissingDescriptorsError(f"there is no ConfigMap {name}") from None
        except ApiError as error:
            if error.status in (400, 403):  # it would be refused again
                raise MissingDescriptorsError(f"the ConfigMap {name} cannot be read: {error}") from None
            raise
        text = (found.get("binaryData") or {}).get(key)
        if text is None:
            raise MissingDescriptorsError(f"the ConfigMap {name} has no key {key} in its binaryData")
        try:
            return base64.b64decode(text, validate=True)
        except binascii.Error:
            raise MissingDescriptorsError(f"the key {key} of the ConfigMap {name} is not base64") from None


def refusal(findings: Sequence[pb.Finding], *, in_force: bool) -> list[Condition]:
    """Return the conditions of a resource in which the checker found errors."""
    errors = errors_of(findings)
    message = condition_message(errors) + (STAYS if in_force else "")
    return [Condition(kind, False, reason_of(errors), message) for kind in ("Accepted", "Ready")]


def refused(error: OrchestratorRefusedError) -> list[Condition]:
    """Return the conditions of a resource that the orchestrator does not even look at."""
    message = f"{error.reason}: {error}"
    return [Condition("Accepted", False, "NotTaken", message), Condition("Ready", False, "NotTaken", message)]
