"""The services behind the gateway: the one place from which they are called.

Each has a stub, and for each a circuit breaker, a bulkhead and a longest time for a call, so that one that is dead or
slow costs the others nothing. Made by `assemble.py`; the resources of `rest` and the parts of `pages` call `ask`.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Generic, TypeVar

import grpc
from amends_chassis.service import Runtime
from amends_resilience import (
    BreakerOpenError,
    BreakerPolicy,
    Bulkhead,
    BulkheadFullError,
    BulkheadPolicy,
    CircuitBreaker,
    DeadlinePassedError,
    SystemClock,
)
from prometheus_client import CollectorRegistry, Counter

from shop.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from shop.customers.v1.customers_pb2_grpc import CustomerServiceStub
from shop.identity.v1.identity_pb2_grpc import IdentityServiceStub
from shop.inventory.v1.inventory_pb2_grpc import InventoryServiceStub
from shop.marketing.v1.marketing_pb2_grpc import MarketingServiceStub
from shop.notifications.v1.notifications_pb2_grpc import NotificationServiceStub
from shop.orders.v1.orders_pb2_grpc import OrderServiceStub
from shop.search.v1.search_pb2_grpc import SearchServiceStub
from shop_gateway.settings import Settings

if TYPE_CHECKING:
    from shop.catalog.v1.catalog_pb2_grpc import CatalogServiceAsyncStub
    from shop.customers.v1.customers_pb2_grpc import CustomerServiceAsyncStub
    from shop.identity.v1.identity_pb2_grpc import IdentityServiceAsyncStub
    from shop.inventory.v1.inventory_pb2_grpc import InventoryServiceAsyncStub
    from shop.marketing.v1.marketing_pb2_grpc import MarketingServiceAsyncStub
    from shop.notifications.v1.notifications_pb2_grpc import NotificationServiceAsyncStub
    from shop.orders.v1.orders_pb2_grpc import OrderServiceAsyncStub
    from shop.search.v1.search_pb2_grpc import SearchServiceAsyncStub

    Method = grpc.aio.UnaryUnaryMultiCallable
else:

    class Method(Generic[TypeVar("A"), TypeVar("B")]):
        """A method of a stub; its class is generic for the type checker only."""


Stub = TypeVar("Stub")
Request = TypeVar("Request")
Response = TypeVar("Response")

READ = timedelta(seconds=1)
"""So long a read may take: what it is for has a fallback, or another try."""
WRITE = timedelta(seconds=8)
"""So long a change may take; a password takes a while, and so does an order whose neighbours are slow."""

_BREAKER = BreakerPolicy(minimum_calls=5, open_for=timedelta(seconds=2))
_BULKHEAD = BulkheadPolicy(max_concurrent=64, max_queued=64)
_QUEUE = timedelta(milliseconds=500)
"""So long a call waits at most for its turn behind the others to the same service."""
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
CALL_ERRORS = (grpc.aio.AioRpcError, BreakerOpenError, BulkheadFullError, DeadlinePassedError)
"""What `Upstream.ask` raises."""


def is_away(error: Exception) -> bool:
    """Return whether one of CALL_ERRORS says that a service is away, not that it refused."""
    return not isinstance(error, grpc.aio.AioRpcError) or error.code() in (*_AWAY, grpc.StatusCode.UNIMPLEMENTED)


class Upstream(Generic[Stub]):
    """One service behind the gateway."""

    def __init__(self, name: str, stub: Stub, refused: Counter) -> None:
        """Call it by `stub`; `refused` counts what was never sent."""
        self.name = name
        self.stub = stub
        self.breaker = CircuitBreaker(_BREAKER, SystemClock())
        self._bulkhead = Bulkhead(_BULKHEAD)
        self._refused = refused

    async def ask(
        self, method: Method[Request, Response], request: Request, *, token: str | None = None, within: timedelta = READ
    ) -> Response:
        """Call a method of the stub as the person whose access token is `token`; None: as nobody.

        The call has `within`, or what is left of the request's deadline if that is shorter. Raises AioRpcError,
        DeadlinePassedError, and without a call BreakerOpenError, BulkheadFullError (CALL_ERRORS).
        """
        metadata = None if token is None else (("authorization", f"Bearer {token}"),)
        try:
            with self.breaker.acquire() as permit, await self._bulkhead.acquire(min(within, _QUEUE)):
                try:
                    answer = await method(request, timeout=within.total_seconds(), metadata=metadata)
                except grpc.aio.AioRpcError as error:
                    (permit.failure if error.code() in _AWAY else permit.success)()
                    raise
                permit.success()
                return answer
        except BreakerOpenError:
            self._refused.labels(self.name, "breaker").inc()
            raise
        except BulkheadFullError:
            self._refused.labels(self.name, "bulkhead").inc()
            raise

    async def find(
        self, method: Method[Request, Response], request: Request, *, token: str | None = None
    ) -> Response | None:
        """Do as `ask` does for a read, and return None for what the service does not have."""
        try:
            return await self.ask(method, request, token=token)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return None


@dataclass(frozen=True, slots=True)
class Upstreams:
    """All services behind the gateway."""

    catalog: "Upstream[CatalogServiceAsyncStub]"
    customers: "Upstream[CustomerServiceAsyncStub]"
    identity: "Upstream[IdentityServiceAsyncStub]"
    inventory: "Upstream[InventoryServiceAsyncStub]"
    marketing: "Upstream[MarketingServiceAsyncStub]"
    notifications: "Upstream[NotificationServiceAsyncStub]"
    orders: "Upstream[OrderServiceAsyncStub]"
    search: "Upstream[SearchServiceAsyncStub]"


def upstreams(settings: Settings, runtime: Runtime) -> Upstreams:
    """Return the services that the settings name, by channels of the process."""
    refused = _refused(runtime.registry)
    channel = runtime.channel
    return Upstreams(
        catalog=Upstream("catalog", CatalogServiceStub(channel(settings.catalog_target)), refused),
        customers=Upstream("customers", CustomerServiceStub(channel(settings.customers_target)), refused),
        identity=Upstream("identity", IdentityServiceStub(channel(settings.identity_target)), refused),
        inventory=Upstream("inventory", InventoryServiceStub(channel(settings.inventory_target)), refused),
        marketing=Upstream("marketing", MarketingServiceStub(channel(settings.marketing_target)), refused),
        notifications=Upstream(
            "notifications", NotificationServiceStub(channel(settings.notifications_target)), refused
        ),
        orders=Upstream("orders", OrderServiceStub(channel(settings.orders_target)), refused),
        search=Upstream("search", SearchServiceStub(channel(settings.search_target)), refused),
    )


def _refused(registry: CollectorRegistry) -> Counter:
    return Counter("gateway_upstream_refused", "Calls that were not sent.", ["upstream", "why"], registry=registry)
