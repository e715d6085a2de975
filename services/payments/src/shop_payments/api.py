"""shop.payments.v1.PaymentService: parses requests, opens transactions, answers.

Assembled by `__main__.py`. Charge and Refund are guarded: the barrier has opened their transaction and commits it.
"""

from collections.abc import Mapping
from datetime import timedelta

from amends_barrier import before, connection
from amends_chassis.database import Database
from amends_chassis.domain import IdentifierInvalidError, RefusedError, identifier
from amends_chassis.errors import (
    AlreadyExists,
    DomainError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
    answers,
)
from amends_chassis.timestamps import timestamp
from amends_chassis.types import Context
from amends_events import Outbox

from shop.payments.v1 import payments_pb2 as pb
from shop.payments.v1 import payments_pb2_grpc
from shop.types.v1 import types_pb2
from shop_payments import domain, store
from shop_payments.cards import Card, card, fingerprint
from shop_payments.domain import Money, PaymentState
from shop_payments.network import Network

ERRORS: Mapping[type[RefusedError], type[DomainError]] = {
    IdentifierInvalidError: InvalidArgument,
    domain.AmountInvalid: InvalidArgument,
    domain.CardUnknown: InvalidArgument,
    domain.CardDeclined: FailedPrecondition,
    domain.InsufficientFunds: FailedPrecondition,
    domain.CardBusy: Unavailable,
    domain.ProcessingError: Unavailable,
    domain.AlreadyCharged: AlreadyExists,
    domain.CardReused: AlreadyExists,
    domain.ChargeDisputed: FailedPrecondition,
    domain.PaymentUnknown: NotFound,
}
STATES: Mapping[PaymentState, "pb.PaymentState.ValueType"] = {
    PaymentState.CHARGED: pb.PAYMENT_STATE_CHARGED,
    PaymentState.REFUNDED: pb.PAYMENT_STATE_REFUNDED,
}


class PaymentService(payments_pb2_grpc.PaymentServiceServicer):
    """Charges cards and keeps the ledger."""

    def __init__(self, database: Database, outbox: Outbox, network: Network) -> None:
        self._database = database
        self._outbox = outbox
        self._network = network

    async def _authorise(self, request: pb.ChargeRequest) -> None:
        with answers(ERRORS):
            order_id, _, customers_card = _wanted(request)
            await self._network.authorise(order_id, customers_card)

    @before(_authorise)
    async def Charge(self, request: pb.ChargeRequest, context: Context) -> pb.ChargeResponse:
        """Charge a card for an order; the card network has approved it."""
        with answers(ERRORS):
            order_id, amount, customers_card = _wanted(request)
            payment_id = await store.charge(connection(), self._outbox, order_id, amount, customers_card)
            return pb.ChargeResponse(payment_id=payment_id)

    async def Refund(self, request: pb.RefundRequest, context: Context) -> pb.RefundResponse:
        """Give the money of an order back."""
        with answers(ERRORS):
            order_id = identifier(request.order_id, "order_id")
            return pb.RefundResponse(refund_id=await store.refund(connection(), self._outbox, order_id))

    async def KeepCard(self, request: pb.KeepCardRequest, context: Context) -> pb.KeepCardResponse:
        """Keep a card for an order that is about to be placed."""
        with answers(ERRORS):
            order_id = identifier(request.order_id, "order_id")
            amount = domain.payable(Money(request.amount.currency, request.amount.minor))
            keep_for = _keep_for(request)
            async with self._database.transaction() as transaction:
                await store.keep_card(transaction, order_id, amount, fingerprint(request.card_token), keep_for)
            return pb.KeepCardResponse()

    async def CloseDispute(self, request: pb.CloseDisputeRequest, context: Context) -> pb.CloseDisputeResponse:
        """End the dispute about a charge."""
        with answers(ERRORS):
            order_id = identifier(request.order_id, "order_id")
            async with self._database.transaction() as transaction:
                await store.close_dispute(transaction, order_id)
            return pb.CloseDisputeResponse()

    async def GetPayment(self, request: pb.GetPaymentRequest, context: Context) -> pb.GetPaymentResponse:
        """Read the payment of an order."""
        with answers(ERRORS):
            order_id = identifier(request.order_id, "order_id")
            async with self._database.transaction() as transaction:
                payment = await store.payment_of(transaction, order_id)
        return pb.GetPaymentResponse(
            payment_id=payment.payment_id,
            order_id=payment.order_id,
            amount=_money(payment.amount),
            state=STATES[payment.state],
            disputed=payment.disputed,
            charged_at=timestamp(payment.charged_at),
        )

    async def ListBalances(self, request: pb.ListBalancesRequest, context: Context) -> pb.ListBalancesResponse:
        """Read the balance of every account."""
        async with self._database.transaction() as transaction:
            balances = await store.balances(transaction)
        return pb.ListBalancesResponse(
            balances=[pb.Balance(account=account, balance=_money(balance)) for account, balance in balances]
        )


def _wanted(request: pb.ChargeRequest) -> tuple[str, Money, Card]:
    amount = domain.payable(Money(request.amount.currency, request.amount.minor))
    return identifier(request.order_id, "order_id"), amount, card(request.card_token)


def _money(amount: Money) -> types_pb2.Money:
    return types_pb2.Money(currency=amount.currency, minor=amount.minor)


def _keep_for(request: pb.KeepCardRequest) -> timedelta:
    """Return how long to keep it: what is asked for, up to the most that is allowed."""
    if not request.HasField("keep_for"):
        return domain.MAX_KEPT
    asked = request.keep_for.seconds + request.keep_for.nanos / 1e9
    return timedelta(seconds=min(max(asked, 0), domain.MAX_KEPT.total_seconds()))
