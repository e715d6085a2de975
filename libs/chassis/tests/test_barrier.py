"""The barrier behind the chassis, with a guarded method of the shop's contract and a real database."""

from datetime import timedelta

import amends_barrier
import grpc
import pytest
from amends_barrier import Barrier
from amends_chassis.database import Database
from amends_chassis.errors import FailedPrecondition
from amends_chassis.service import Runtime, running
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from shop.payments.v1 import payments_pb2 as pb
from shop.payments.v1 import payments_pb2_grpc

from .echo import Echo, register, settings

SERVICE = "shop.payments.v1.PaymentService"


class Payments(payments_pb2_grpc.PaymentServiceServicer):
    """Counts its charges in the barrier's transaction."""

    async def Charge(self, request, context):
        connection = amends_barrier.connection()
        await connection.execute("INSERT INTO charge VALUES ($1)", request.order_id)
        if request.card_token == "tok_declined":
            raise FailedPrecondition("CARD_DECLINED", "The card was declined.")
        if request.card_token == "tok_bug":
            raise ValueError("secret")
        return pb.ChargeResponse(payment_id=f"p-{request.order_id}")


@pytest.fixture
async def runtime(database_url):
    prepared = Database(database_url)
    await prepared.connect()
    await prepared.pool.execute(Barrier.schema())
    await prepared.pool.execute("CREATE TABLE charge (order_id text)")
    await prepared.close()

    async def assemble(runtime: Runtime) -> None:
        runtime.add(payments_pb2_grpc.add_PaymentServiceServicer_to_server, Payments(), SERVICE)

    async with running(settings(database_url=database_url), assemble) as made:
        yield made


def _metadata(key: str) -> tuple[tuple[str, str], ...]:
    return (
        ("amends-run-id", "r-1"),
        ("amends-step", "charge"),
        ("amends-operation", "action"),
        ("amends-idempotency-key", key),
    )


async def _charges(runtime: Runtime) -> int:
    return await runtime.database.pool.fetchval("SELECT count(*) FROM charge")


async def test_a_repeated_guarded_call_has_one_effect(runtime):
    async with grpc.aio.insecure_channel(runtime.address) as channel:
        stub = payments_pb2_grpc.PaymentServiceStub(channel)
        for _ in range(2):
            call = stub.Charge(pb.ChargeRequest(order_id="o-1"), metadata=_metadata("k-1"))
            assert (await call).payment_id == "p-o-1"
            assert ("amends-barrier", "1") in list(await call.trailing_metadata())
    assert await _charges(runtime) == 1


@pytest.mark.parametrize(
    ("card", "code", "reason"),
    [
        ("tok_declined", grpc.StatusCode.FAILED_PRECONDITION, "CARD_DECLINED"),
        ("tok_bug", grpc.StatusCode.INTERNAL, "INTERNAL"),
    ],
)
async def test_an_error_of_a_guarded_handler_is_mapped_and_still_carries_the_trailer(runtime, card, code, reason):
    async with grpc.aio.insecure_channel(runtime.address) as channel:
        stub = payments_pb2_grpc.PaymentServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Charge(pb.ChargeRequest(order_id="o-1", card_token=card), metadata=_metadata("k-1"))
    info = ErrorInfo()
    assert rpc_status.from_call(caught.value).details[0].Unpack(info)
    assert (caught.value.code(), info.reason, info.domain) == (code, reason, "shop.payments.v1")
    assert ("amends-barrier", "1") in list(caught.value.trailing_metadata())
    assert "secret" not in str(caught.value)
    assert await _charges(runtime) == 0


async def test_a_service_with_guarded_methods_has_a_barrier_that_forgets_in_the_end(runtime):
    assert runtime.barrier is not None
    assert f"/{SERVICE}/Charge" in runtime.barrier.methods
    async with grpc.aio.insecure_channel(runtime.address) as channel:
        stub = payments_pb2_grpc.PaymentServiceStub(channel)
        await stub.Charge(pb.ChargeRequest(order_id="o-1"), metadata=_metadata("k-1"))
    assert await runtime.barrier.expire(timedelta(days=1)) == 0
    await runtime.database.pool.execute("UPDATE barrier SET created_at = created_at - interval '2 days'")
    assert await runtime.barrier.expire(timedelta(days=1)) == 1


async def test_a_service_without_guarded_methods_has_no_barrier(database_url):
    async def assemble(runtime: Runtime) -> None:
        runtime.add(register, Echo(), "test.echo.v1.EchoService")

    async with running(settings(database_url=database_url), assemble) as runtime:
        assert runtime.barrier is None
