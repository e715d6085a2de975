"""The choice of the operator that works when several run: that of the highest priority in a KopfPeering.

kopf keeps this instance's record there and pauses its own watches. What works on what they saw is ours, so it looks at
the same records and waits here. Two that both believe it is their turn for a moment do no harm: they would
start and write the same. Without a peering it is always our turn.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from amends_operator.kube.client import ApiError, Client
from amends_operator.settings import Settings

GROUP = "kopf.dev"
WAITS = "peering.waits"
WORKS = "peering.works"
UNREADABLE = "peering.unreadable"
LOOK = timedelta(seconds=1)
LIFETIME = timedelta(seconds=20)
"""How long after its last sign an instance counts as alive."""
_log = structlog.get_logger(__name__)


class Turn:
    """Set while it is our turn; `changed` is called at each change."""

    def __init__(self, client: Client, settings: Settings, changed: Callable[[bool], None]) -> None:
        self._client = client
        self._settings = settings
        self._changed = changed
        self._ours = asyncio.Event()
        self._known = False
        self.identity = f"{socket.gethostname()}-{random.getrandbits(32):08x}"
        given = settings.peering_priority
        self.priority = given if given is not None else random.randrange(2**31)  # noqa: S311

    @property
    def ours(self) -> bool:
        """Return whether it is our turn."""
        return self._ours.is_set()

    async def wait(self) -> None:
        """Wait until it is our turn."""
        await self._ours.wait()

    async def run(self) -> None:
        """Look for other operators for ever, once per interval."""
        if self._settings.peering is None:
            self._set(True)
            await asyncio.Event().wait()
        while True:
            try:
                self._set(await self._highest())
            except ApiError as error:  # the last choice stands: no object can be written now
                _log.debug(UNREADABLE, why=str(error))
            await asyncio.sleep(LOOK.total_seconds())

    def _set(self, ours: bool) -> None:
        if self._known and ours is self.ours:
            return
        self._known = True
        if ours:
            self._ours.set()
        else:
            self._ours.clear()
        self._changed(ours)
        if self._settings.peering is not None:
            _log.info(WORKS if ours else WAITS, priority=self.priority, identity=self.identity)

    async def _highest(self) -> bool:
        """Return whether no living instance has our priority or a higher one, anywhere where we would work."""
        name, chosen = self._settings.peering, self._settings
        paths = [f"namespaces/{namespace}/kopfpeerings/{name}" for namespace in chosen.namespaces]
        for path in [f"clusterkopfpeerings/{name}"] if chosen.everywhere else paths:
            found = await self._client.call("GET", f"/apis/{GROUP}/v1/{path}")
            records: Mapping[str, Mapping[str, Any]] = found.get("status") or {}
            for identity, record in records.items():
                if identity != self.identity and _alive(record) and int(record.get("priority", 0)) >= self.priority:
                    return False
        return True


def _alive(record: Mapping[str, Any]) -> bool:
    try:
        seen = datetime.fromisoformat(str(record["lastseen"]))
    except (KeyError, ValueError):
        return True  # of a version that we do not know
    seen = seen if seen.tzinfo is not None else seen.replace(tzinfo=UTC)
    return datetime.now(UTC) - seen < timedelta(seconds=int(record.get("lifetime", 60)))
