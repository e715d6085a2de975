"""A proxy between a client and a Kubernetes API server that can lose, repeat, hold, refuse and cut what passes.

Called by tests of whatever watches or writes Kubernetes objects. Without a fault it only passes everything on.
"""

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
from aiohttp import web

from amends_testkit.kubernetes import Kubernetes

WatchEvent = dict[str, Any]
_HOP = ("Host", "Connection", "Content-Length", "Transfer-Encoding", "Accept-Encoding")


@dataclass(frozen=True, slots=True)
class Passing:
    """One call that passes the proxy."""

    method: str
    path: str
    """With its query."""

    @property
    def writes(self) -> bool:
        """Return whether the call changes something."""
        return self.method != "GET"

    @property
    def watches(self) -> bool:
        """Return whether the answer is a stream."""
        return "watch=true" in self.path

    @property
    def lists(self) -> bool:
        """Return whether the call lists Amends objects."""
        return not self.writes and not self.watches and "/amends.dev/" in self.path and "limit" in self.path


@dataclass(slots=True)
class ProxyFaults:
    """The faults that the proxy makes. Each is looked at for every call; the defaults do nothing."""

    away: bool = False
    """Connections are cut at once, those that stand too."""
    refuse: Callable[[Passing], web.Response | None] = lambda passing: None
    """An answer in place of the server's."""
    answered: Callable[[Passing, int], Awaitable[None]] | None = None
    """Called with the status when the server has answered a write, before the client gets the answer."""
    events: Callable[[Passing, WatchEvent], Iterable[WatchEvent]] = lambda passing, event: (event,)
    """What is passed on of one event of a watch."""
    silent: bool = False
    """Watches stay open, and no event of them is passed on."""
    unanswered: bool = False
    """Watches are not even answered."""
    lists: Callable[[Passing, WatchEvent], WatchEvent] = lambda passing, body: body
    """What is passed on of an answer to a list or a read."""


@dataclass(slots=True)
class KubeProxy:
    """A running proxy: `async with await KubeProxy.start(kubernetes) as proxy`."""

    server: Kubernetes
    faults: ProxyFaults = field(default_factory=ProxyFaults)
    passed: list[tuple[Passing, int]] = field(default_factory=list)
    """Every call but watches with the status it got, in order."""
    watches: list[Passing] = field(default_factory=list)
    """Every watch that was asked for, in order."""
    port: int = 0
    _runner: web.AppRunner | None = None
    _session: aiohttp.ClientSession | None = None
    _streams: dict[int, web.Request] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Return the proxy's URL, http://127.0.0.1:port."""
        return f"http://127.0.0.1:{self.port}"

    @classmethod
    async def start(cls, server: Kubernetes) -> Self:
        """Listen on a free port of 127.0.0.1."""
        self = cls(server)
        context = ssl.create_default_context(cafile=server.authority)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=context))
        app = web.Application(client_max_size=4 * 1024 * 1024)
        app.router.add_route("*", "/{tail:.*}", self._serve)
        self._runner = web.AppRunner(
            app, handle_signals=False, access_log=None, shutdown_timeout=0.1, handler_cancellation=True
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = int(self._runner.addresses[0][1])
        return self

    async def stop(self) -> None:
        """Cut every connection and stop the proxy."""
        self.cut()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def cut(self) -> None:
        """Reset every watch that is open."""
        for request in list(self._streams.values()):
            if request.transport is not None:
                request.transport.abort()

    def writes(self, part: str = "") -> list[tuple[Passing, int]]:
        """Return the writes whose address has `part` in it."""
        return [(passing, status) for passing, status in self.passed if passing.writes and part in passing.path]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        passing = Passing(request.method, request.path_qs)
        if self.faults.away:
            return self._abort(request)
        refused = self.faults.refuse(passing)
        if refused is not None:
            self.passed.append((passing, refused.status))
            return refused
        if passing.watches:
            self.watches.append(passing)
            if self.faults.unanswered:
                return await self._hang()
        return await self._forward(request, passing)

    async def _forward(self, request: web.Request, passing: Passing) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name not in _HOP}
        assert self._session is not None
        timeout = aiohttp.ClientTimeout(total=None if passing.watches else 30)
        data = await request.read() or None
        url = self.server.url + request.path_qs
        async with self._session.request(
            request.method, url, headers=headers, data=data, timeout=timeout, skip_auto_headers=("Content-Type",)
        ) as answer:
            if passing.watches and answer.status == 200:
                return await self._stream(request, passing, answer)
            return await self._pass_on(passing, answer)

    async def _pass_on(self, passing: Passing, answer: aiohttp.ClientResponse) -> web.Response:
        body = await answer.read()
        if not passing.writes and answer.status == 200 and "/amends.dev/" in passing.path:
            body = json.dumps(self.faults.lists(passing, json.loads(body))).encode()
        self.passed.append((passing, answer.status))
        if passing.writes and self.faults.answered is not None:
            await self.faults.answered(passing, answer.status)
        kept = {name: value for name, value in answer.headers.items() if name in ("Content-Type", "Retry-After")}
        return web.Response(status=answer.status, body=body, headers=kept)

    async def _stream(
        self, request: web.Request, passing: Passing, answer: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        self._streams[id(request)] = request
        buffer = b""
        try:
            async for chunk in answer.content.iter_any():
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in filter(None, lines):
                    if self.faults.away:
                        return self._abort(request)
                    if self.faults.silent:
                        continue
                    for event in self.faults.events(passing, json.loads(line)):
                        await response.write(json.dumps(event).encode() + b"\n")
            if self.faults.silent:
                await self._hang()
        except (ConnectionError, aiohttp.ClientError):
            return response
        finally:
            self._streams.pop(id(request), None)
        return response

    async def _hang(self) -> web.StreamResponse:
        """Say nothing until the client gives up."""
        await asyncio.Event().wait()
        return web.Response(status=504)

    def _abort(self, request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=503)


def refusal(status: int, reason: str, **headers: str) -> web.Response:
    """Return a refusal in the form of the API server."""
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "message": reason,
        "code": status,
    }
    return web.json_response(body, status=status, headers=headers)
