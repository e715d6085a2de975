"""The service as its callers see it: over gRPC, with the real barrier and a real database."""

import asyncio

import grpc
import pytest
from amends_testkit.service import refusal_of, refusals_of
from amends_testkit.waiting import eventually
from shop_payments import api, domain
from shop_payments.network import FAILING_ATTEMPTS, QUESTIONS_PER_CARD

from shop.payments.v1 import payments_pb2 as pb
from shop.types.v1.types_pb2 import Money


def charge(order_id="o-1", token="tok_visa", minor=1250, currency="EUR"):
    return pb.ChargeRequest(order_id=order_id, amount=Money(currency=currency, minor=minor), card_token=token)


async def merchant(service):
    balances = (await service.ListBalances(pb.ListBalancesRequest())).balances
    assert sum(entry.balance.minor for entry in balances) == 0
    return sum(entry.balance.minor for entry in balances if entry.account == "merchant")


def test_every_refusal_of_the_domain_has_an_answer():
    assert set(api.ERRORS) == refusals_of(domain)


def test_every_state_of_a_payment_has_its_place_in_the_contract():
    assert set(api.STATES) == set(domain.PaymentState)


async def test_a_repeated_charge_is_answered_from_memory(service, call):
    first = await service.Charge(charge(), metadata=call("k-1"))
    assert await service.Charge(charge(), metadata=call("k-1")) == first
    payment = await service.GetPayment(pb.GetPaymentRequest(order_id="o-1"))
    assert (payment.payment_id, payment.state) == (first.payment_id, pb.PAYMENT_STATE_CHARGED)
    assert payment.charged_at.seconds > 0
    assert await merchant(service) == 1250


async def test_a_compensated_charge_is_refunded_and_stays_fenced(service, call):
    await service.Charge(charge(), metadata=call("k-1"))
    for _ in range(2):
        await service.Refund(pb.RefundRequest(order_id="o-1"), metadata=call("k-1", "compensation", "ok"))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await service.Charge(charge(), metadata=call("k-1"))
    assert refusal_of(error.value) == ("ABORTED", "STEP_FENCED")
    payment = await service.GetPayment(pb.GetPaymentRequest(order_id="o-1"))
    assert payment.state == pb.PAYMENT_STATE_REFUNDED
    assert await merchant(service) == 0


async def test_a_refund_of_a_charge_that_never_ran_does_nothing_and_stops_a_late_charge(service, call):
    await service.Refund(pb.RefundRequest(order_id="o-1"), metadata=call("k-1", "compensation", "unknown"))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await service.Charge(charge(), metadata=call("k-1"))
    assert refusal_of(error.value) == ("ABORTED", "STEP_FENCED")
    assert await merchant(service) == 0


async def test_a_refund_whose_charge_is_not_remembered_is_refused(service, call):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await service.Refund(pb.RefundRequest(order_id="o-1"), metadata=call("k-1", "compensation", "ok"))
    assert refusal_of(error.value) == ("FAILED_PRECONDITION", "ACTION_UNKNOWN")


async def test_a_person_gives_the_money_of_a_charge_back_once_outside_of_its_saga(service, call):
    await service.Charge(charge(), metadata=call("k-1"))
    refunds = {(await service.Refund(pb.RefundRequest(order_id="o-1"))).refund_id for _ in range(2)}
    assert len(refunds) == 1
    assert await merchant(service) == 0
    await service.Refund(pb.RefundRequest(order_id="o-1"), metadata=call("k-1", "compensation", "ok"))
    assert await merchant(service) == 0


async def test_a_voided_charge_never_happens(service, call):
    await service.Charge(charge(), metadata=call("k-1", "void"))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await service.Charge(charge(), metadata=call("k-1"))
    assert refusal_of(error.value) == ("ABORTED", "STEP_FENCED")
    assert await merchant(service) == 0


async def test_a_slow_charge_outlives_its_callers_deadline_and_is_made_once(service, call):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await service.Charge(charge(token="tok_slow"), metadata=call("k-1"), timeout=0.2)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    answer = await service.Charge(charge(token="tok_slow"), metadata=call("k-1"))
    payment = await service.GetPayment(pb.GetPaymentRequest(order_id="o-1"))
    assert payment.payment_id == answer.payment_id
    assert await merchant(service) == 1250


async def test_customers_with_slow_cards_do_not_make_others_wait(service, call, database):
    slow = [
        service.Charge(charge(f"o-{number}", "tok_slow"), metadata=call(f"k-{number}"))
        for number in range(QUESTIONS_PER_CARD)
    ]

    async def all_are_asked():
        return await database.pool.fetchval("SELECT count(*) FROM network_attempt") == len(slow)

    await eventually(all_are_asked)
    await service.Charge(charge("honest"), metadata=call("honest"))
    assert await database.pool.fetch("SELECT order_id FROM payment") == [("honest",)]
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await service.Charge(charge("one-more", "tok_slow"), metadata=call("one-more"))
    assert refusal_of(error.value) == ("UNAVAILABLE", "CARD_BUSY")
    for each in slow:
        each.cancel()

    async def the_card_is_free_again():
        try:
            return await service.Charge(charge("o-0", "tok_slow"), metadata=call("k-0"))
        except grpc.aio.AioRpcError:
            return None

    await eventually(the_card_is_free_again)


async def test_a_processing_error_goes_away_with_the_same_key(service, call):
    for _ in range(FAILING_ATTEMPTS):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await service.Charge(charge(token="tok_processingError"), metadata=call("k-1"))
        assert refusal_of(error.value) == ("UNAVAILABLE", "PROCESSING_ERROR")
    await service.Charge(charge(token="tok_processingError"), metadata=call("k-1"))
    assert await merchant(service) == 1250


async def test_more_processing_errors_at_once_than_there_are_connections_do_not_lock_up(service, call):
    async def attempt(number):
        try:
            await service.Charge(charge(f"o-{number}", "tok_processingError"), metadata=call(f"k-{number}"))
        except grpc.aio.AioRpcError as error:
            return error.code()

    codes = await asyncio.gather(*(attempt(number) for number in range(30)))
    assert set(codes) == {grpc.StatusCode.UNAVAILABLE}


async def test_a_disputed_charge_is_refunded_after_the_dispute(service, call):
    await service.Charge(charge(token="tok_disputed"), metadata=call("k-1"))
    assert (await service.GetPayment(pb.GetPaymentRequest(order_id="o-1"))).disputed
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await service.Refund(pb.RefundRequest(order_id="o-1"), metadata=call("k-1", "compensation", "ok"))
    assert refusal_of(error.value) == ("FAILED_PRECONDITION", "CHARGE_DISPUTED")
    await service.CloseDispute(pb.CloseDisputeRequest(order_id="o-1"))
    await service.Refund(pb.RefundRequest(order_id="o-1"), metadata=call("k-1", "compensation", "ok"))
    assert await merchant(service) == 0


@pytest.mark.parametrize(
    ("method", "request_", "expected"),
    [
        ("Charge", charge(token="tok_chargeDeclined"), ("FAILED_PRECONDITION", "CARD_DECLINED")),
        ("Charge", charge(token="tok_insufficientFunds"), ("FAILED_PRECONDITION", "INSUFFICIENT_FUNDS")),
        ("Charge", charge(token="tok_nobody"), ("INVALID_ARGUMENT", "CARD_UNKNOWN")),
        ("Charge", charge(token=""), ("INVALID_ARGUMENT", "CARD_UNKNOWN")),
        ("Charge", charge(minor=0), ("INVALID_ARGUMENT", "AMOUNT_INVALID")),
        ("Charge", charge(minor=-5), ("INVALID_ARGUMENT", "AMOUNT_INVALID")),
        ("Charge", charge(currency="euro"), ("INVALID_ARGUMENT", "AMOUNT_INVALID")),
        ("Charge", charge(order_id=""), ("INVALID_ARGUMENT", "IDENTIFIER_INVALID")),
        ("Refund", pb.RefundRequest(order_id="o-1"), ("NOT_FOUND", "PAYMENT_UNKNOWN")),
        ("GetPayment", pb.GetPaymentRequest(order_id="o-1"), ("NOT_FOUND", "PAYMENT_UNKNOWN")),
        ("CloseDispute", pb.CloseDisputeRequest(order_id="o-1"), ("NOT_FOUND", "PAYMENT_UNKNOWN")),
    ],
)
async def test_a_wrong_request_is_refused_with_a_reason_and_moves_nothing(service, method, request_, expected):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await getattr(service, method)(request_)
    assert refusal_of(error.value) == expected
    assert await merchant(service) == 0


async def test_an_order_that_was_charged_is_not_charged_under_another_key(service, call):
    await service.Charge(charge(), metadata=call("k-1"))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await service.Charge(charge(), metadata=call("k-2"))
    assert refusal_of(error.value) == ("ALREADY_EXISTS", "ALREADY_CHARGED")
    assert await merchant(service) == 1250


async def test_no_log_line_and_no_answer_holds_a_token(service, call, capfd):
    calls = [
        service.Charge(charge(token[4:], token), metadata=call(token[4:]))
        for token in ("tok_visa", "tok_chargeDeclined", "tok_nobody")
    ]
    details = [await each.details() for each in calls]
    captured = capfd.readouterr()
    assert "tok_" not in f"{details} {captured.out} {captured.err}"


def keep(order_id="o-1", token="tok_visa", minor=1250, seconds=None):
    request = pb.KeepCardRequest(order_id=order_id, amount=Money(currency="EUR", minor=minor), card_token=token)
    if seconds is not None:
        request.keep_for.seconds = seconds
    return request


async def expires_in(database, order_id="o-1"):
    left = await database.pool.fetchval("SELECT expires_at - now() FROM kept_card WHERE order_id = $1", order_id)
    return left.total_seconds()


async def test_a_card_is_kept_for_an_order_for_as_long_as_it_was_asked_for_last(service, database):
    await service.KeepCard(keep(seconds=30))
    assert 20 < await expires_in(database) <= 30
    await service.KeepCard(keep(seconds=60))
    assert 50 < await expires_in(database) <= 60
    await service.KeepCard(keep(seconds=10))
    assert 50 < await expires_in(database) <= 60


@pytest.mark.parametrize(("seconds", "kept"), [(None, 3600), (86_400, 3600), (2**62, 3600), (-5, 0)])
async def test_a_card_is_kept_for_an_hour_at_most(service, database, seconds, kept):
    await service.KeepCard(keep(seconds=seconds))
    assert kept - 10 < await expires_in(database) <= kept


@pytest.mark.parametrize(("token", "minor"), [("tok_mastercard", 1250), ("tok_visa", 1251)])
async def test_another_card_or_amount_for_the_order_is_refused(service, token, minor):
    await service.KeepCard(keep())
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await service.KeepCard(keep(token=token, minor=minor))
    assert refusal_of(error.value) == ("ALREADY_EXISTS", "CARD_REUSED")


async def test_a_card_of_an_amount_that_cannot_be_paid_is_not_kept(service):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await service.KeepCard(keep(minor=0))
    assert refusal_of(error.value) == ("INVALID_ARGUMENT", "AMOUNT_INVALID")
