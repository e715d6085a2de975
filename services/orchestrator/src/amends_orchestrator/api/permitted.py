"""Serves the methods of all services under the permissions of each caller. Used where AMENDS_ROLES names roles."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from amends_chassis.access import identity
from amends_chassis.followed import FollowedFile

from amends.saga.v1 import run_service_pb2 as pb
from amends_orchestrator.api.views import Views, parse_run_id
from amends_orchestrator.permissions import EVERY, METHODS, Bindings, Permissions, Role, acting_with, permissions_of

DEFAULT = "default"
_LISTS = ("sagas", "participants", "retry_policies")


def permitted(api: Any, bindings: FollowedFile[Bindings], views: Views) -> Any:
    """Return a servicer with the methods of `api`, each of which asks first whether its caller may."""
    served = SimpleNamespace()
    for name in METHODS:
        method = getattr(api, name, None)
        if method is not None:
            make = _stream if inspect.isasyncgenfunction(method) else _unary
            setattr(served, name, make(name, method, bindings, views))
    return served


def _unary(name: str, method: Any, bindings: FollowedFile[Bindings], views: Views) -> Any:
    async def serve(request: Any, context: Any) -> Any:
        permissions = permissions_of(bindings.current, identity(context))
        asked = await _asked(name, request, permissions, views)
        with acting_with(permissions):
            return _shown(await method(asked, context), permissions)

    return serve


def _stream(name: str, method: Any, bindings: FollowedFile[Bindings], views: Views) -> Any:
    async def serve(request: Any, context: Any) -> AsyncIterator[Any]:
        permissions = permissions_of(bindings.current, identity(context))
        asked = await _asked(name, request, permissions, views)
        async for answer in method(asked, context):
            yield answer

    return serve


async def _asked(name: str, request: Any, permissions: Permissions, views: Views) -> Any:
    """Return the request as its caller may make it. Raises PermissionDenied, NotFound."""
    role = METHODS[name]
    fields = request.DESCRIPTOR.fields_by_name
    if role is Role.ADMIN:
        permissions.require(role, EVERY)
        return _signed(request, permissions)
    if name.startswith("List"):
        return request  # The answer has only what the caller may read.
    if "manifest" in fields or "manifests" in fields:
        permissions.require_somewhere(role)  # The text says in which one: whoever stores it asks for that.
        return request
    if "run_id" in fields and (request.run_id or name != "GetRun"):
        namespace = (await views.row(parse_run_id(request.run_id))).namespace
        permissions.require_of_run(role, namespace)
    else:
        namespace = request.namespace or DEFAULT
        permissions.require(role, namespace)
    asked = type(request)()
    asked.CopyFrom(request)
    if "payloads" in fields and not permissions.may(Role.PAYLOAD_READER, namespace):
        asked.payloads = pb.PAYLOADS_NONE
    return _signed(asked, permissions)


def _signed(request: Any, permissions: Permissions) -> Any:
    """Return the request with the caller's identity beside the actor that it names."""
    if "actor" not in request.DESCRIPTOR.fields_by_name or not permissions.identity:
        return request
    asked = type(request)()
    asked.CopyFrom(request)
    claimed = request.actor.strip()
    asked.actor = f"{permissions.identity} (says to be {claimed})" if claimed else permissions.identity
    return asked


def _shown(answer: Any, permissions: Permissions) -> Any:
    """Take out of a list what its caller may not read."""
    for name in _LISTS:
        if name in answer.DESCRIPTOR.fields_by_name:
            entries = getattr(answer, name)
            kept = [entry for entry in entries if permissions.may(Role.VIEWER, entry.namespace)]
            del entries[:]
            entries.extend(kept)
    return answer
