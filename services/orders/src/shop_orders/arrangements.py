"""What payments and shipping have to know before a choreographed order is placed, because no event carries it: the card
and the address. `order_process.py` makes these arrangements first.

Both are idempotent and lapse by themselves, so an order that is not placed in the end leaves nothing behind.
"""

import asyncio
from datetime import timedelta

import grpc
from amends_chassis.service import Runtime
from amends_resilience import DeadlinePassedError
from google.protobuf.duration_pb2 import Duration

from shop.payments.v1.payments_pb2 import KeepCardRequest
from shop.payments.v1.payments_pb2_grpc import PaymentServiceStub
from shop.shipping.v1.shipping_pb2 import AnnounceParcelRequest
from shop.shipping.v1.shipping_pb2_grpc import ShippingServiceStub
from shop.types.v1 import types_pb2
from shop_orders.domain import Content, Money, NeighbourAway, OrderReused
from shop_orders.settings import Settings


class Arrangements:
    """Hands the card to payments and the address to shipping."""

    def __init__(self, payments: grpc.aio.Channel, shipping: grpc.aio.Channel, deadline: timedelta) -> None:
        """`deadline` is how long an order may be PENDING: nothing is charged or booked after that."""
        self.deadline = deadline
        self._payments = PaymentServiceStub(payments)
        self._shipping = ShippingServiceStub(shipping)
        self._keep_for = Duration()
        self._keep_for.FromTimedelta(deadline)

    async def make(self, order_id: str, content: Content, total: Money) -> None:
        """Return when payments has the card and shipping the address. Raises OrderReused, NeighbourAway."""
        address = content.address
        try:
            await asyncio.gather(
                self._payments.KeepCard(
                    KeepCardRequest(
                        order_id=order_id,
                        amount=types_pb2.Money(currency=total.currency, minor=total.minor),
                        card_token=content.card_token,
                        keep_for=self._keep_for,
                    )
                ),
                self._shipping.AnnounceParcel(
                    AnnounceParcelRequest(
                        order_id=order_id,
                        address=types_pb2.Address(
                            recipient=address.recipient,
                            street=address.street,
                            city=address.city,
                            postal_code=address.postal_code,
                            country=address.country,
                        ),
                        lines=[types_pb2.Line(sku=line.sku, quantity=line.quantity) for line in content.lines],
                        keep_for=self._keep_for,
                    )
                ),
            )
        except (grpc.aio.AioRpcError, DeadlinePassedError) as error:
            if isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.ALREADY_EXISTS:
                raise OrderReused(f"order {order_id} is being placed with other content") from error
            raise NeighbourAway("the card or the address cannot be handed over now, try again") from error


def arrangements(settings: Settings, runtime: Runtime) -> Arrangements | None:
    """Return what choreographed orders take; None where there is no broker, or the neighbours are not said."""
    if settings.broker is None or settings.payments_target is None or settings.shipping_target is None:
        return None
    payments, shipping = runtime.channel(settings.payments_target), runtime.channel(settings.shipping_target)
    return Arrangements(payments, shipping, settings.choreography_deadline)
