"""A thin client of the API server: the few calls that reconcilers make, through kopf's login.

It tries again what may pass by itself (no connection, 5xx, 429 after the time that the server asks for), with back-off
and jitter, and hands everything else to the caller. Every call has a timeout.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

import aiohttp
import kopf
import structlog
from amends_resilience import Backoff

from amends_operator.kube.login import session_of
from amends_operator.kube.objects import GROUP, VERSION, Body, Key, ResourceKind

_log = structlog.get_logger(__name__)
API_RETRIED = "kubernetes.call_again"
TIMEOUT = aiohttp.ClientTimeout(total=20, sock_connect=5)
BACKOFF = Backoff(initial=timedelta(milliseconds=200), maximum=timedelta(seconds=10))
ATTEMPTS = 5
LONGEST_PAUSE = timedelta(seconds=60)
PAGE = 500
JSON = "application/json"
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


class ApiError(Exception):
    """The API server refused or cannot be reached. `status` is 0 when there was no answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}" if status else message)
        self.status = status


class NotFoundError(ApiError):
    """There is no such object (any more)."""


class ConflictError(ApiError):
    """The object has changed since it was read: read it again."""


class Client:
    """Calls the API server. `count` gets the verb and the HTTP status of every write."""

    def __init__(
        self,
        credentials: Callable[[], Awaitable[kopf.ConnectionInfo]],
        count: Callable[[str, int], None] = lambda verb, status: None,
        attempts: int = ATTEMPTS,
    ) -> None:
        self._credentials = credentials
        self._count = count
        self._attempts = attempts
        self._server = ""
        self._session: aiohttp.ClientSession | None = None
        self._opening = asyncio.Lock()

    async def close(self) -> None:
        """Close the connections to the API server."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def read(self, key: Key) -> Body:
        """Read one of our objects. Raises NotFoundError, ApiError."""
        return await self.call("GET", path_of(key))

    async def patch(self, key: Key, patch: Mapping[str, Any]) -> Body:
        """Merge into an object, but not its status. Raises NotFoundError, ConflictError, ApiError."""
        return await self.call("PATCH", path_of(key), patch, MERGE)

    async def patch_status(self, key: Key, status: Mapping[str, Any], version: str) -> Body:
        """Merge into the status of the object as it was at `version`; return its metadata afterwards.

        The answer has metadata alone: the caller knows the object at `version`, so it knows it afterwards too, and both
        sides save a fifth of what a write costs. Raises NotFoundError, ConflictError, ApiError.
        """
        patch = {"metadata": {"resourceVersion": version}, "status": status}
        answer = await self.call("PATCH", f"{path_of(key)}/status", patch, MERGE, METADATA_ONLY)
        return dict(answer["metadata"])

    async def delete(self, key: Key, uid: str) -> None:
        """Delete the object with that UID and no other. Raises NotFoundError, ConflictError, ApiError."""
        await self.call("DELETE", path_of(key), {"preconditions": {"uid": uid}})

    async def objects(self, kind: ResourceKind, namespace: str | None) -> AsyncIterator[Body]:
        """List the objects of a kind, of one namespace or all, as the API server has them now. Raises ApiError."""
        where = f"/namespaces/{namespace}" if namespace is not None else ""
        async for body in self.pages(f"/apis/{GROUP}/{VERSION}{where}/{kind.value}"):
            yield body

    async def pages(self, path: str) -> AsyncIterator[Body]:
        """List the objects below an address, a page at a time. Raises ApiError."""
        token = ""
        while True:
            query = f"?limit={PAGE}" + (f"&continue={token}" if token else "")
            page = await self.call("GET", path + query)
            for body in page["items"]:
                yield body
            token = page["metadata"].get("continue") or ""
            if not token:
                return

    async def call(self, verb: str, path: str, payload: Any = None, content: str = JSON, accept: str = JSON) -> Body:
        """Make one call, with its retries. Raises NotFoundError, ConflictError, ApiError."""
        for attempt in range(1, self._attempts + 1):
            status, answer, after = await self._once(verb, path, payload, {"Content-Type": content, "Accept": accept})
            if verb != "GET":
                self._count(verb, status)
            if 200 <= status < 300:
                return answer
            message = str(answer.get("message") or "no answer")
            if status == 404:
                raise NotFoundError(status, message)
            if status == 409:
                raise ConflictError(status, message)
            if status == 401:
                await self.close()  # the next attempt logs in again
            elif status not in (0, 429) and status < 500:
                raise ApiError(status, message)
            if attempt < self._attempts:
                pause = after or BACKOFF.delay(attempt, random.random)
                _log.debug(API_RETRIED, verb=verb, path=path, status=status, again_in=pause.total_seconds())
                await asyncio.sleep(pause.total_seconds())
        raise ApiError(status, message)

    async def _once(
        self, verb: str, path: str, payload: Any, headers: Mapping[str, str]
    ) -> tuple[int, Body, timedelta | None]:
        data = None if payload is None else json.dumps(payload, separators=(",", ":")).encode()
        try:
            session = await self._open()
            url = self._server + path
            async with session.request(verb, url, data=data, headers=headers, timeout=TIMEOUT) as answer:
                text = await answer.read()
                return answer.status, _parsed(text), _after(answer.headers.get("Retry-After"))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return 0, {"message": f"{type(error).__name__}: {error}"}, None

    async def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            async with self._opening:
                if self._session is None:
                    info = await self._credentials()
                    self._server = info.server.rstrip("/")
                    self._session = session_of(info)
        return self._session


def path_of(key: Key) -> str:
    """Return the address of one of our objects."""
    return f"/apis/{GROUP}/{VERSION}/namespaces/{key.namespace}/{key.kind.value}/{key.name}"


def _parsed(text: bytes) -> Body:
    try:
        found = json.loads(text)
    except ValueError:
        return {"message": text[:200].decode(errors="replace")}
    return found if isinstance(found, dict) else {"message": "no object"}


def _after(header: str | None) -> timedelta | None:
    """Return the pause that the server asks for, bounded, with jitter so that not everybody comes back at once."""
    if header is None or not header.isdigit():
        return None
    return min(timedelta(seconds=int(header)), LONGEST_PAUSE) + random.random() * timedelta(milliseconds=200)  # noqa: S311
