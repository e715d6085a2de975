"""kopf as the source of events: it lists and watches our kinds, and every object goes to `Objects`. Nothing else.

Its handlers do no work, so nothing depends on which events came in which order or at all. Its HTTP session is ours, so
that every answer to a watch is heard; a watch ends itself regularly, so a healthy one is heard of even when idle.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import aiohttp
import kopf
from amends_resilience import Backoff

from amends_operator.health import Heartbeats
from amends_operator.kube.login import credentials, session_of
from amends_operator.kube.objects import GROUP, VERSION, Objects, ResourceKind
from amends_operator.peering import LIFETIME
from amends_operator.settings import Settings

PREFIX = "operator.amends.dev"
_RECONNECT = Backoff(initial=timedelta(milliseconds=200), maximum=timedelta(seconds=15))


class Reconnecting:
    """The pauses between attempts to list or watch: they never end, for this stream is not allowed to fail."""

    def __iter__(self) -> Iterator[float]:
        """Return a fresh sequence of pauses: kopf iterates once for each watch."""
        attempt = 1
        while True:
            ceiling = _RECONNECT.ceiling(attempt).total_seconds()
            yield ceiling / 2 + random.random() * ceiling / 2  # noqa: S311
            attempt += 1


class NothingToCompare(kopf.DiffBaseStorage):
    """We react to events, never to differences: kopf need not copy each object to find some, nor keep its last form."""

    def build(self, **_: Any) -> Any:
        """Return nothing of the object."""
        return {}

    def fetch(self, **_: Any) -> Any:
        """Return nothing: nothing was kept."""
        return None

    def store(self, **_: Any) -> None:
        """Store nothing: the last form of an object is not compared."""


def registry_of(objects: Objects, beats: Heartbeats) -> kopf.OperatorRegistry:
    """Return kopf's registry: handlers that bring events to `objects`, and the login."""
    registry = kopf.OperatorRegistry()
    for kind in ResourceKind:
        kopf.on.event(GROUP, VERSION, kind.value, registry=registry, id=f"seen-{kind.value}")(_handler(kind, objects))

    async def login(**_: Any) -> kopf.AiohttpSession:
        info = await credentials()
        trace = aiohttp.TraceConfig()

        async def answered(session: Any, context: Any, params: aiohttp.TraceRequestEndParams) -> None:
            if params.response.status == 200:
                watch = _watched(params.url.path)
                beats.heard(watch)
                if "watch" in params.url.query:
                    beats.opened(watch)

        trace.on_request_end.append(answered)
        session = session_of(info, trace)
        return kopf.AiohttpSession(
            server=info.server, default_namespace=info.default_namespace, aiohttp_session=session
        )

    kopf.on.login(registry=registry, id="login")(login)
    return registry


def _handler(kind: ResourceKind, objects: Objects) -> Any:
    async def seen(event: dict[str, Any], **_: Any) -> None:
        if event["type"] == "DELETED":
            objects.vanished(kind, event["object"])
        else:
            objects.seen(kind, event["object"])

    return seen


def _watched(path: str) -> str:
    return path.rpartition(f"/{VERSION}/")[2]


def watches(settings: Settings) -> list[str]:
    """Return what is watched, by the addresses of the lists below the version."""
    if settings.everywhere:
        return [kind.value for kind in ResourceKind]
    return [f"namespaces/{namespace}/{kind.value}" for namespace in settings.namespaces for kind in ResourceKind]


def kopf_settings(settings: Settings, priority: int) -> kopf.OperatorSettings:
    """Return kopf's settings: no events of its own, no scanning, names of ours, impatient with silent watches."""
    chosen = kopf.OperatorSettings()
    silence = settings.watch_silence.total_seconds()
    chosen.posting.enabled = False
    chosen.scanning.disabled = True
    chosen.persistence.finalizer = f"{PREFIX}/finalizer"
    chosen.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=PREFIX)
    chosen.persistence.diffbase_storage = NothingToCompare()
    chosen.watching.inactivity_timeout = silence
    chosen.watching.server_timeout = max(1, int(silence * 0.75))
    chosen.watching.connect_timeout = min(5.0, silence)
    chosen.watching.reconnect_backoff = 0.1
    chosen.networking.request_timeout = 30.0
    chosen.networking.connect_timeout = 5.0
    chosen.networking.error_backoffs = Reconnecting()
    chosen.queueing.idle_timeout = 0.5
    chosen.queueing.exit_timeout = 1.0
    if settings.peering is None:
        chosen.peering.standalone = True
    else:
        chosen.peering.name = settings.peering
        chosen.peering.mandatory = True
        chosen.peering.priority = priority
        chosen.peering.lifetime = int(LIFETIME.total_seconds())
        chosen.peering.clusterwide = settings.everywhere
    return chosen
