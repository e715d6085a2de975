"""The saga `place-order` at the orchestrator: how an order is fulfilled, seen from the orders service.

`order_process.py` starts it and asks for its end. The order's id is the run's key, so starting it again starts nothing
twice.
"""

from datetime import timedelta
from typing import Any, cast

import grpc
from amends_resilience import DeadlinePassedError
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]
from grpc_status import rpc_status

from amends.saga.v1 import run_pb2, run_service_pb2
from amends.saga.v1.run_service_pb2_grpc import RunServiceStub
from shop.orders.v1 import orders_pb2
from shop.types.v1 import types_pb2
from shop_orders.domain import Order

SAGA = "place-order"
RUN_UNKNOWN = "RUN_UNKNOWN"
INVALID = grpc.StatusCode.INVALID_ARGUMENT
REFUSALS = (INVALID, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)
"""StartRun has started nothing."""
KEY_REUSED = "KEY_REUSED"
"""There is a run with this key, begun with other input, and it may go on: the order stays PENDING."""
_ON_THE_WAY = timedelta(milliseconds=200)


class SagaRefused(Exception):
    """The orchestrator cannot read this order, and it knows of no run for it."""


class RunUnknown(Exception):
    """The orchestrator knows of no run for this order."""


class KeyReused(Exception):
    """The order's key has a run that was begun with other input, by somebody else or before a restore."""


class RunClosed(Exception):
    """The run has ended, or nothing can stop it any more."""


class OrchestratorAway(Exception):
    """The orchestrator gave no answer that settles anything. The saga may have been started all the same."""


class PlaceOrderSaga:
    """Starts runs of the saga and reads them."""

    def __init__(self, channel: grpc.aio.Channel, namespace: str) -> None:
        self._runs = RunServiceStub(channel)
        self._namespace = namespace

    async def start(self, order: Order) -> run_pb2.Run:
        """Start the order's saga, if it was not yet, and return its run.

        A refusal says that this request starts nothing, and nothing about an earlier one whose answer was lost. So the
        run is looked up before anybody is told that there is none. Raises SagaRefused, KeyReused, OrchestratorAway.
        """
        try:
            return (await self._runs.StartRun(self._request(order))).run
        except (grpc.aio.AioRpcError, DeadlinePassedError) as error:
            if _reason(error) == KEY_REUSED:
                raise KeyReused(order.order_id) from error
            if _code(error) not in REFUSALS:
                raise _away(error) from error
            refusal = error
        try:
            return await self.find(order.order_id)
        except RunUnknown:
            # A saga that is missing, or not ready, may be there later. Input that does not fit will never fit.
            raise _away(refusal) if _code(refusal) is not INVALID else SagaRefused(_reason(refusal)) from refusal

    async def wait(self, order: Order, within: timedelta) -> None:
        """Return when the run has ended, waits for a person, or `within` has passed. `find` tells how it ended.

        `order` still has its card token. Raises OrchestratorAway.
        """
        request = self._request(order)
        request.wait = True
        request.wait_timeout.CopyFrom(_duration(within))
        try:
            await self._runs.StartRun(request, timeout=(within + _ON_THE_WAY).total_seconds())
        except (grpc.aio.AioRpcError, DeadlinePassedError) as error:
            raise _away(error) from error

    async def find(self, order_id: str) -> run_pb2.Run:
        """Return the run of an order, with what its steps answered. Raises RunUnknown, OrchestratorAway."""
        request = run_service_pb2.GetRunRequest(namespace=self._namespace, idempotency_key=order_id)
        try:
            return (await self._runs.GetRun(request)).run
        except (grpc.aio.AioRpcError, DeadlinePassedError) as error:
            if _reason(error) == RUN_UNKNOWN:
                raise RunUnknown(order_id) from error
            raise _away(error) from error

    async def cancel(self, run_id: str, reason: str, actor: str) -> None:
        """Ask a run to undo what it did, if it still can. Raises RunClosed, OrchestratorAway."""
        request = run_service_pb2.CancelRunRequest(run_id=run_id, reason=reason, actor=actor)
        try:
            await self._runs.CancelRun(request)
        except (grpc.aio.AioRpcError, DeadlinePassedError) as error:
            if _code(error) is grpc.StatusCode.FAILED_PRECONDITION:
                raise RunClosed(_reason(error)) from error
            raise _away(error) from error

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


def _code(error: Exception) -> grpc.StatusCode | None:
    return error.code() if isinstance(error, grpc.aio.AioRpcError) else None


def _reason(error: Exception) -> str:
    """Return the reason that the orchestrator gave for a failed call, else what is known about the failure."""
    if not isinstance(error, grpc.aio.AioRpcError):
        return "there was no time left to ask it"
    status = rpc_status.from_call(cast("Any", error))
    for detail in status.details if status is not None else ():
        info = ErrorInfo()
        if detail.Unpack(info):
            return str(info.reason)
    return error.code().name


def _away(error: Exception) -> OrchestratorAway:
    return OrchestratorAway(_reason(error))
