"""Answers probes and Prometheus over HTTP: /healthz, /readyz, /metrics.

/healthz turns red when a watch has gone silent: then Kubernetes starts the operator again, which is always safe.
It does not look at the orchestrator, whose absence no restart of the operator would mend.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta

from aiohttp import web
from amends_chassis.hosts import WILDCARD, address, bare
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest


class Heartbeats:
    """The times at which each watch was last heard of."""

    def __init__(self, limit: timedelta, clock: Callable[[], float] = time.monotonic) -> None:
        """Take how long a watch may be silent before that is unhealthy."""
        self._limit = limit.total_seconds()
        self._clock = clock
        self._heard: dict[str, float] = {}
        self._waiting: set[str] = set()
        self._open = asyncio.Event()
        self._resting = False

    def expect(self, watch: str) -> None:
        """Begin to listen for a watch."""
        self._heard.setdefault(watch, self._clock())
        self._waiting.add(watch)

    def heard(self, watch: str) -> None:
        """Note that the API server has answered a watch, or has sent something in it."""
        if watch in self._heard:
            self._heard[watch] = self._clock()

    def opened(self, watch: str) -> None:
        """Note that a watch was answered, so what was there before has been listed."""
        self._waiting.discard(watch)
        if not self._waiting:
            self._open.set()

    async def all_open(self, within: timedelta) -> bool:
        """Wait until every watch was answered once; return False when that took too long."""
        try:
            async with asyncio.timeout(within.total_seconds()):
                await self._open.wait()
        except TimeoutError:
            return False
        return True

    def rest(self, resting: bool) -> None:
        """Ignore silence while another instance works: our watches are closed then."""
        self._resting = resting
        for watch in self._heard:
            self.heard(watch)

    @property
    def resting(self) -> bool:
        """Return whether another replica holds the peering, so that this one idles."""
        return self._resting

    def silence(self) -> float:
        """Return the seconds since the quietest watch was heard of, 0 while resting."""
        return 0.0 if self._resting else self._clock() - min(self._heard.values(), default=self._clock())

    def silent(self) -> list[str]:
        """Return the watches that have been silent for too long."""
        now = self._clock()
        if self._resting:
            return []
        return sorted(watch for watch, at in self._heard.items() if now - at > self._limit)


class HealthServer:
    """The HTTP server of the operator."""

    def __init__(self, beats: Heartbeats, ready: Callable[[], bool], registry: CollectorRegistry) -> None:
        self._beats = beats
        self._ready = ready
        self._registry = registry
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> str:
        """Listen, and return host:port. Raises OSError when the address cannot be listened on.

        The IPv6 wildcard means every family that there is: given the address alone, asyncio would leave IPv4 out.
        """
        app = web.Application()
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        self._runner = web.AppRunner(app, handle_signals=False, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, None if bare(host) == WILDCARD else bare(host), port)
        await site.start()
        bound = self._runner.addresses[0]
        return address(bound[0], bound[1])

    async def close(self) -> None:
        """Stop listening for health checks."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, request: web.Request) -> web.Response:
        silent = self._beats.silent()
        if silent:
            return web.Response(status=503, text=f"silent watches: {', '.join(silent)}\n")
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        if self._beats.resting:
            return web.Response(text="ok, another instance works\n")
        return web.Response(text="ok\n") if self._ready() else web.Response(status=503, text="not listed yet\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
