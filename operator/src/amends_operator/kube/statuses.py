"""Writes statuses: only what is new, and an event for each transition that people should hear of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from amends_operator.kube.client import Client, ConflictError
from amends_operator.kube.conditions import Condition, conditions, difference, transitions
from amends_operator.kube.events import Events
from amends_operator.kube.objects import HANDLED, Body, Key, Objects, asked_of, generation_of

AWAY = "OrchestratorAway"


class Statuses:
    """Writes statuses of our objects."""

    def __init__(
        self, client: Client, objects: Objects, events: Events, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._client = client
        self._objects = objects
        self._events = events
        self.now = now

    async def put(
        self, key: Key, body: Body, fields: Mapping[str, Any], wanted: Sequence[Condition], tell: Iterable[str] = ()
    ) -> bool:
        """Make the status of an object `fields` and `wanted`; return False when it was so already.

        `tell` names the conditions whose transitions are told as events. Empty fields are left out.
        Raises NotFoundError, ConflictError, ApiError.
        """
        current = body.get("status") or {}
        former = current.get("conditions") or []
        generation = generation_of(body)
        status = {name: value for name, value in fields.items() if value not in (None, "", [], {})}
        status["observedGeneration"] = generation
        status["conditions"] = conditions(former, wanted, generation, self.now())
        patch = difference(current, status)
        if not patch:
            return False
        await self._write(key, body, patch, status)
        told = set(tell)
        known = {condition["type"] for condition in former}
        for condition in transitions(former, wanted):
            quiet = condition.type not in known and condition.holds is False and _good(condition.type, False)
            if condition.type in told and condition.holds is not None and not quiet:
                await self._events.tell(
                    key, body, condition.reason, condition.message, warning=not _good(condition.type, condition.holds)
                )
        return True

    async def observed(self, key: Key, body: Body) -> None:
        """Write that this generation, or a request for another look, changes nothing.

        Raises NotFoundError, ConflictError, ApiError.
        """
        seen: dict[str, Any] = {"observedGeneration": generation_of(body)}
        if asked_of(body):
            seen[HANDLED] = asked_of(body)
        await self._write(key, body, seen, {**body["status"], **seen})

    async def note(self, key: Key, body: Body, name: str, value: Mapping[str, Any]) -> Body:
        """Write one field of the status and nothing else; return the object afterwards.

        Raises NotFoundError, ConflictError, ApiError.
        """
        status = body.get("status") or {}
        return await self._write(key, body, {name: difference(status.get(name) or {}, value)}, {**status, name: value})

    async def _write(self, key: Key, body: Body, patch: Mapping[str, Any], status: Mapping[str, Any]) -> Body:
        try:
            metadata = await self._client.patch_status(key, patch, body["metadata"]["resourceVersion"])
        except ConflictError:  # our copy is older than the object, and the watch may be silent
            self._objects.seen(key.kind, await self._client.read(key))
            raise
        return self._objects.written(key.kind, {**body, "metadata": metadata, "status": status})


def _good(kind: str, holds: bool) -> bool:
    return holds is (kind not in ("Stalled", "Conflicted", "Reconciling"))


def carried(body: Body, names: Iterable[str]) -> dict[str, Any]:
    """Return the fields of the status that are to stay as they are."""
    status = body.get("status") or {}
    return {name: status[name] for name in names if name in status}
