"""The grpc.aio server as every service runs it: limits said out loud, routes that grow after the start, reflection.

The server listens before the service is assembled, so that probes get answers while a database is awaited; that is
why handlers are found through `Routes` and not registered with the server. Used by `service.Runtime`.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import NoReturn, TypeVar

import grpc
from grpc_reflection.v1alpha import reflection

from amends_chassis.settings import ServiceSettings
from amends_chassis.types import Handler, behavior

Servicer = TypeVar("Servicer")
Registrar = Callable[[Servicer, grpc.aio.Server], None]

_AGE_GRACE = timedelta(seconds=30)
_METADATA_BYTES = 16 * 1024
_STREAMS = 512
"""Calls at once on one connection. A client has one connection to each replica, and an order that is awaited holds a
call, so a hundred would be a limit on honest clients; calls without a request are bounded by the admission."""


def server_options(settings: ServiceSettings) -> list[tuple[str, int]]:
    """Return the options of a server under `settings`."""
    return [
        ("grpc.so_reuseport", 0),  # else a second process on the same port would silently take half of the calls
        ("grpc.max_receive_message_length", settings.max_request_bytes or settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        # One limit: between two different ones gRPC refuses by chance.
        ("grpc.max_metadata_size", _METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
        # What our own clients do (a ping each 20 s while calls wait) stays well within what is allowed.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.max_concurrent_streams", _STREAMS),
        ("grpc.max_connection_age_ms", _milliseconds(settings.max_connection_age)),
        ("grpc.max_connection_age_grace_ms", _milliseconds(_AGE_GRACE)),
    ]


def _milliseconds(value: timedelta) -> int:
    return max(1, value // timedelta(milliseconds=1))


class Routes(grpc.GenericRpcHandler):
    """Finds the handler of a method among the services added so far."""

    def __init__(self) -> None:
        """Begin with no service registered."""
        self._handlers: dict[str, Handler] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """Return the handler, None when no service has the method; called by the server for each call."""
        return self._handlers.get(handler_call_details.method)

    def add(self, registrar: Registrar[Servicer], servicer: Servicer, service_name: str) -> list[str]:
        """Let a generated `add_..._to_server` function register `servicer` here; return the full method names.

        Raises ValueError when the function registers another service, TypeError for a method that is not async.
        """
        taken = _Registration()
        registrar(servicer, taken)
        methods = taken.handlers.get(service_name)
        if methods is None:
            raise ValueError(f"the registrar added {sorted(taken.handlers)}, not {service_name}")
        added = {
            f"/{service_name}/{name}": handler
            for name, handler in methods.items()
            if _is_implemented(f"/{service_name}/{name}", handler)
        }
        self._handlers.update(added)
        return list(added)


def _is_implemented(method: str, handler: Handler) -> bool:
    function = behavior(handler)
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return True
    if function.__module__.endswith("_pb2_grpc"):  # inherited from the generated class: answered with UNIMPLEMENTED
        return False
    raise TypeError(f"{method} must be `async def`")


class _Registration(grpc.aio.Server):
    """The object that generated registration functions see as the server; it only takes handlers."""

    def __init__(self) -> None:
        self.handlers: dict[str, Mapping[str, Handler]] = {}

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Ignore: the same handlers come by name too."""

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Handler]) -> None:
        self.handlers[service_name] = method_handlers

    def add_insecure_port(self, address: str) -> NoReturn:
        raise TypeError("a registrar only registers")

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> NoReturn:
        raise TypeError("a registrar only registers")

    async def start(self) -> None:
        raise TypeError("a registrar only registers")

    async def stop(self, grace: float | None) -> None:
        raise TypeError("a registrar only registers")

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        raise TypeError("a registrar only registers")


def add_reflection(routes: Routes, services: Iterable[str]) -> list[str]:
    """Let clients list and describe `services`, and reflection itself (grpc.reflection.v1alpha)."""
    name = reflection.SERVICE_NAME
    names = (*services, name)

    def register(_: object, server: grpc.aio.Server) -> None:
        reflection.enable_server_reflection(names, server)

    return routes.add(register, None, name)
