"""The servers of chassis-vs-grpc: an empty handler behind the chassis, nothing, or the usual interceptors.

AMENDS_BENCH_ECHO says which. Started by `chassis`.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from amends_chassis.service import Runtime, run
from amends_chassis.settings import LogLevel, ServiceSettings
from opentelemetry.instrumentation.grpc import aio_server_interceptor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from prometheus_client import Counter, Histogram

from amends_bench.process import serve_until_told
from shop.inventory.v1 import inventory_pb2
from shop.inventory.v1.inventory_pb2_grpc import InventoryServiceServicer, add_InventoryServiceServicer_to_server

HANDLED = Counter("bench_handled", "Calls.", ["method", "code"])
SECONDS = Histogram("bench_seconds", "Time.", ["method"])


class Empty(InventoryServiceServicer):
    """An inventory service that holds no stock."""

    async def GetStock(self, request: inventory_pb2.GetStockRequest, context: Any) -> inventory_pb2.GetStockResponse:
        """Answer with an empty message."""
        return inventory_pb2.GetStockResponse(sku=request.sku)


class Counted(grpc.aio.ServerInterceptor):
    """A Prometheus wrapper as many services have one."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the handler with one more function around it."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        method, inner = handler_call_details.method, handler.unary_unary

        async def serve(request: Any, context: Any) -> Any:
            began = time.perf_counter()
            try:
                return await inner(request, context)
            finally:
                SECONDS.labels(method).observe(time.perf_counter() - began)
                HANDLED.labels(method, "OK").inc()

        return grpc.unary_unary_rpc_method_handler(serve, handler.request_deserializer, handler.response_serializer)


async def assemble(runtime: Runtime) -> None:
    """Put the service together on the chassis."""
    runtime.add(add_InventoryServiceServicer_to_server, Empty(), "shop.inventory.v1.InventoryService")  # type: ignore[abstract] # UNIMPLEMENTED


async def plain(*, usual: bool) -> None:
    """Serve the same service on plain gRPC, without the chassis."""
    interceptors: list[Any] = []
    if usual:
        provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(0.01)))
        interceptors = [aio_server_interceptor(tracer_provider=provider), Counted()]  # type: ignore[no-untyped-call]
    server = grpc.aio.server(interceptors=interceptors)
    add_InventoryServiceServicer_to_server(Empty(), server)  # type: ignore[abstract] # UNIMPLEMENTED
    await serve_until_told("echo", server)


if __name__ == "__main__":
    kind = os.environ["AMENDS_BENCH_ECHO"]
    if kind == "chassis":
        run(ServiceSettings(name="echo", log_level=LogLevel.WARNING), assemble)
    else:
        asyncio.run(plain(usual=kind == "usual"))
