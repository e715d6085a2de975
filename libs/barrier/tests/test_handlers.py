"""Whatever a handler does, effect and row stay together, and nobody is told of an error before it is rolled back."""

import asyncio

import asyncpg
import grpc
import pytest
from amends_barrier import connection, savepoint
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc.status_pb2 import Status
from grpc import StatusCode
from grpc_status import rpc_status

from .ledger import Ledger, leave_effect, serve


async def nothing_happened(ledger: Ledger) -> bool:
    assert await ledger.effects() == []
    assert await ledger.rows() == {}
    return True


async def raising(message, context):
    raise ValueError("the card number is 4242")


async def aborting(message, context):
    await context.abort(StatusCode.NOT_FOUND, "no such order", (("x-more", "1"),))


async def aborting_with_status(message, context):
    await context.abort_with_status(rpc_status.to_status(Status(code=5, message="no such order")))


async def setting_a_code(message, context):
    context.set_code(StatusCode.NOT_FOUND)
    context.set_details("no such order")
    return message


async def swallowing_its_abort(message, context):
    try:
        await context.abort(StatusCode.NOT_FOUND, "no such order")
    except grpc.aio.AbortError:
        return message


async def answering_another_type(message, context):
    return 42


@pytest.mark.parametrize(
    ("behavior", "code"),
    [
        (raising, StatusCode.UNKNOWN),
        (aborting, StatusCode.NOT_FOUND),
        (aborting_with_status, StatusCode.NOT_FOUND),
        (setting_a_code, StatusCode.NOT_FOUND),
        (swallowing_its_abort, StatusCode.NOT_FOUND),
        (answering_another_type, StatusCode.UNKNOWN),
    ],
)
@pytest.mark.parametrize("key", ["k-1", None])
async def test_an_error_of_any_kind_rolls_back_and_carries_the_trailer(ledger: Ledger, behavior, code, key) -> None:
    async def after_an_effect(message, context):
        await leave_effect("Charge", message.value)
        return await behavior(message, context)

    ledger.on["Charge"] = after_an_effect
    reply = await ledger.call("Charge", key=key)
    assert (reply.code, reply.guarded) == (code, key is not None)
    if code is StatusCode.NOT_FOUND:
        assert reply.details == "no such order"
    if behavior is aborting:
        assert reply.trailers["x-more"] == "1"
    if behavior is aborting_with_status:
        assert Status.FromString(reply.trailers["grpc-status-details-bin"]).code == 5
    assert await nothing_happened(ledger)
    del ledger.on["Charge"]
    assert (await ledger.call("Charge", key=key)).ok


async def test_the_caller_learns_of_a_rejection_after_the_rollback(suite_url: str) -> None:
    still_open: list[int] = []

    class Spy(grpc.aio.ServerInterceptor):
        """Looks for open transactions at the moment in which the caller is told."""

        async def intercept_service(self, continuation, handler_call_details):
            inner = await continuation(handler_call_details)

            async def serve(request, context):
                return await inner.unary_unary(request, Listening(context))

            return grpc.unary_unary_rpc_method_handler(serve, inner.request_deserializer, inner.response_serializer)

    class Listening:
        def __init__(self, real):
            self._real = real

        def __getattr__(self, name):
            return getattr(self._real, name)

        async def abort(self, *arguments):
            still_open.append(
                await ledger.pool.fetchval(
                    "SELECT count(*) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
                )
            )
            await self._real.abort(*arguments)

    async def reject(message, context):
        await leave_effect("Charge", message.value)
        await context.abort(StatusCode.FAILED_PRECONDITION, "card declined")

    async with serve(suite_url, outer=[Spy()]) as ledger:
        ledger.on["Charge"] = reject
        assert (await ledger.charge()).code is StatusCode.FAILED_PRECONDITION
    assert still_open == [0]


async def test_trailers_of_the_handler_stand_beside_the_barriers(ledger: Ledger) -> None:
    async def with_trailers(message, context):
        context.set_trailing_metadata((("x-cost", "3"),))
        assert context.time_remaining() is None
        return message

    ledger.on["Charge"] = with_trailers
    reply = await ledger.charge()
    assert (reply.trailers["x-cost"], reply.guarded) == ("3", True)


@pytest.mark.parametrize("operation", ["action", "compensation"])
async def test_a_request_that_is_no_message_is_refused_without_effect(ledger: Ledger, operation: str) -> None:
    await ledger.charge()
    reply = await ledger.call("Refund", b"\xff\xff", operation=operation, key="k-2" if operation == "action" else "k-1")
    assert (reply.code, reply.reason) == (StatusCode.INVALID_ARGUMENT, "REQUEST_UNREADABLE")
    assert await ledger.rows("k-2") == {}
    assert list(await ledger.rows("k-1")) == ["action"]


async def test_an_error_that_a_handler_swallows_with_its_transaction_broken_is_no_success(ledger: Ledger) -> None:
    async def careless(message, context):
        await leave_effect("Charge", message.value)
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection().execute("SELECT 1 / 0")
        return message

    ledger.on["Charge"] = careless
    for key in ("k-1", None):
        reply = await ledger.call("Charge", key=key)
        assert (reply.code, reply.guarded) == (StatusCode.UNKNOWN, key is not None)
        assert await nothing_happened(ledger)


async def fail_in_a_savepoint(what: str) -> None:
    async with savepoint() as lent:
        await leave_effect("Refund", what)
        await lent.execute("SELECT 1 / 0")


async def test_a_savepoint_undoes_a_part_that_failed_and_keeps_the_rest(ledger: Ledger) -> None:
    async def careful(message, context):
        await leave_effect("Charge", message.value)
        with pytest.raises(asyncpg.DivisionByZeroError):
            await fail_in_a_savepoint(message.value)
        async with savepoint():
            await leave_effect("Charge", message.value)
        return message

    ledger.on["Charge"] = careful
    assert (await ledger.charge()).ok
    assert await ledger.effects() == ["Charge", "Charge"]


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
async def test_a_handler_that_ends_the_transaction_itself_is_no_success(ledger: Ledger, end: str) -> None:
    async def meddling(message, context):
        await connection().execute(end)
        return message

    ledger.on["Charge"] = meddling
    assert (await ledger.charge()).code is StatusCode.UNKNOWN
    assert (await ledger.charge()).code is StatusCode.UNKNOWN
    assert await ledger.effects() == []


async def test_two_handlers_at_once_have_a_connection_each(ledger: Ledger) -> None:
    met = asyncio.Barrier(2)
    seen = set()

    async def look(message, context):
        seen.add(await connection().fetchval("SELECT pg_backend_pid()"))
        await met.wait()
        return message

    ledger.on["Charge"] = look
    await asyncio.gather(ledger.charge(key="k-1"), ledger.charge(key="k-2"))
    assert len(seen) == 2


async def test_outside_a_guarded_handler_there_is_no_connection(ledger: Ledger) -> None:
    async def look(message, context):
        with pytest.raises(LookupError):
            connection()
        return StringValue(value="none")

    ledger.on["Plain"] = look
    reply = await ledger.call("Plain")
    assert (reply.text, reply.guarded) == ("none", False)
    with pytest.raises(LookupError):
        connection()


async def test_a_guarded_method_without_a_key_has_its_effect_each_time_and_leaves_no_row(ledger: Ledger) -> None:
    replies = [await ledger.call("Charge", key=None) for _ in range(2)]
    assert [(reply.ok, reply.guarded) for reply in replies] == [(True, False)] * 2
    assert await ledger.effects() == ["Charge", "Charge"]
    assert await ledger.pool.fetchval("SELECT count(*) FROM barrier") == 0


async def test_an_outer_interceptor_maps_errors_and_keeps_the_trailer(suite_url: str) -> None:
    class Mapper(grpc.aio.ServerInterceptor):
        """As the chassis does it: the exception's text stays inside."""

        async def intercept_service(self, continuation, handler_call_details):
            inner = await continuation(handler_call_details)

            async def serve(request, context):
                try:
                    return await inner.unary_unary(request, context)
                except ValueError:
                    await context.abort(StatusCode.INTERNAL, "see the log", context.trailing_metadata() or ())

            return grpc.unary_unary_rpc_method_handler(serve, inner.request_deserializer, inner.response_serializer)

    async with serve(suite_url, outer=[Mapper()]) as ledger:
        ledger.on["Charge"] = raising
        reply = await ledger.charge()
        assert (reply.code, reply.details, reply.guarded) == (StatusCode.INTERNAL, "see the log", True)
        assert (await ledger.refund(outcome="ok")).reason == "ACTION_UNKNOWN"
