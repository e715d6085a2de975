"""The saga `place-order` at the orchestrator: how an order is fulfilled, seen from the orders service.

`desk.py` starts it and asks for its end. The order's id is the run's key, so starting it again starts nothing twice.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import grpc
from amends_resilience import DeadlinePassed
from google.protobuf.duration_pb2 import Duration

from amends.saga.v1 import run_pb2, run_service_pb2
from amends.saga.v1.run_service_pb2_grpc import RunServiceStub
from shop.orders.v1 import orders_pb2
from shop.types.v1 import types_pb2
from shop_orders.domain import Order

SAGA = "place-order"
_ON_THE_WAY = timedelta(milliseconds=200)


class SagaRefused(Exception):
    """The orchestrator will never run the saga for this order: it cannot read the order, and no run exists."""


class OrchestratorAway(Exception):
    """The orchestrator gave no answer that settles anything. The saga may have been started all the same."""


class PlaceOrderSaga:
    """Starts runs of the saga and reads them."""

    def __init__(self, channel: grpc.aio.Channel, namespace: str) -> None:
        self._runs = RunServiceStub(channel)
        self._namespace = namespace

    async def start(self, order: Order) -> run_pb2.Run:
        """Start the order's saga, if it was not yet, and return its run. Raises SagaRefused, OrchestratorAway."""
        with _answers():
            return (await self._runs.StartRun(self._request(order))).run

    async def end(self, order: Order, within: timedelta) -> run_pb2.Run:
        """Return the run when it has ended, waits for a person, or `within` has passed.

        `order` still has its card token. Raises SagaRefused, OrchestratorAway.
        """
        request = self._request(order)
        request.wait = True
        request.wait_timeout.CopyFrom(_duration(within))
        with _answers():
            return (await self._runs.StartRun(request, timeout=(within + _ON_THE_WAY).total_seconds())).run

    async def find(self, order_id: str) -> run_pb2.Run:
        """Return the run of an order whose saga was started. Raises OrchestratorAway."""
        request = run_service_pb2.GetRunRequest(namespace=self._namespace, idempotency_key=order_id)
        with _answers():
            return (await self._runs.GetRun(request)).run

    def _request(self, order: Order) -> run_service_pb2.StartRunRequest:
        return run_service_pb2.StartRunRequest(
            namespace=self._namespace,
            saga=SAGA,
            idempotency_key=order.order_id,
            binary=place_order_input(order).SerializeToString(deterministic=True),
        )


def place_order_input(order: Order) -> orders_pb2.PlaceOrderInput:
    """Return what the saga is given: made of the order alone, so that it is the same whenever it is sent."""
    return orders_pb2.PlaceOrderInput(
        order_id=order.order_id,
        customer_id=order.customer_id,
        lines=[types_pb2.Line(sku=line.sku, quantity=line.quantity) for line in order.lines],
        total=types_pb2.Money(currency=order.total.currency, minor=order.total.minor),
        card_token=order.card_token or "",
        address=types_pb2.Address(
            recipient=order.address.recipient,
            street=order.address.street,
            city=order.address.city,
            postal_code=order.address.postal_code,
            country=order.address.country,
        ),
    )


def _duration(value: timedelta) -> Duration:
    duration = Duration()
    duration.FromTimedelta(value)
    return duration


@contextmanager
def _answers() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        # Not ALREADY_EXISTS: there is a run with this key, begun with other input, and it may go on. To call the order
        # rejected would be a lie; it stays PENDING and is complained about until a person has looked.
        if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
            raise SagaRefused(error.code().name) from error
        raise OrchestratorAway(error.code().name) from error
    except DeadlinePassed as error:
        raise OrchestratorAway("there was no time left to ask it") from error
