"""What happens when a transaction cannot be finished: nothing half done, and an answer that asks for another try."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import urlsplit

import asyncpg
import pytest
from amends_barrier import connection
from amends_barrier.guard import Guard
from amends_barrier.protocol import BarrierError, GuardedCall, Operation
from amends_embedded import Postgres
from amends_testkit.waiting import eventually
from google.protobuf.wrappers_pb2 import StringValue
from grpc import StatusCode

from .ledger import Ledger, leave_effect, serve

SHORT = timedelta(milliseconds=300)
SLOW_COMMIT = """
CREATE FUNCTION wait_at_commit() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON effect DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION wait_at_commit();
"""


@asynccontextmanager
async def held_at_commit(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Every commit of an effect waits until the lock that is yielded's is let go, at the latest by the block's end."""
    other = await asyncpg.connect(url)
    await other.execute(SLOW_COMMIT + "SELECT pg_advisory_lock(42)")
    try:
        yield other
    finally:
        await other.execute("SELECT pg_advisory_unlock_all()")
        await other.execute("DROP TRIGGER slow_commit ON effect; DROP FUNCTION wait_at_commit")
        await other.close()


class TestTheCallersDeadline:
    async def test_a_handler_that_began_is_finished_and_the_retry_finds_its_response(self, ledger: Ledger) -> None:
        ledger.on["Charge"] = ledger.gated
        await ledger.left_by_its_caller(ledger.charge(timeout=SHORT))
        retry = asyncio.create_task(ledger.charge())
        await ledger.waiting()
        ledger.gate.set()
        assert (await retry).text.startswith("Charge")
        assert await ledger.effects() == ["Charge"]
        assert ledger.calls == ["Charge o-1"]

    async def test_a_commit_under_way_is_finished(self, ledger: Ledger, suite_url: str) -> None:
        async with held_at_commit(suite_url) as holder:
            call = asyncio.create_task(ledger.charge(timeout=SHORT))
            await ledger.waiting()
            await ledger.left_by_its_caller(call)
            assert await ledger.effects() == []
            await holder.execute("SELECT pg_advisory_unlock(42)")
            await eventually(ledger.rows, what="the commit")
            assert await ledger.effects() == ["Charge"]
            assert (await ledger.charge()).text.startswith("Charge")
            assert ledger.calls == ["Charge o-1"]

    async def test_a_copy_that_waits_is_called_off_without_effect(self, ledger: Ledger, suite_url: str) -> None:
        other = await asyncpg.connect(suite_url)
        await other.execute("BEGIN; INSERT INTO barrier (idempotency_key, operation) VALUES ('k-1', 'action')")
        await ledger.left_by_its_caller(ledger.charge(timeout=SHORT))
        await ledger.barrier.drain()
        await other.execute("ROLLBACK")
        await other.close()
        assert (await ledger.rows(), ledger.calls) == ({}, [])
        assert ledger.pool.get_idle_size() == ledger.pool.get_size()

    async def test_a_call_that_waits_for_a_connection_is_called_off(self, suite_url: str) -> None:
        async with serve(suite_url, connections=1) as ledger:
            async with ledger.pool.acquire():
                await ledger.left_by_its_caller(ledger.charge(timeout=SHORT))
                await ledger.barrier.drain()
            assert (await ledger.charge()).ok
            assert ledger.calls == ["Charge o-1"]

    async def test_a_handler_without_end_is_given_up_after_the_bound_and_rolled_back(
        self, suite_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with serve(suite_url, finish=timedelta(milliseconds=50)) as ledger:
            ledger.on["Charge"] = ledger.gated
            with caplog.at_level(logging.INFO, "amends_barrier"):
                await ledger.left_by_its_caller(ledger.charge(timeout=SHORT))
                await ledger.barrier.drain()
            assert [record.message for record in caplog.records] == ["barrier.given_up_after_caller_left"]
            assert (await ledger.rows(), await ledger.effects()) == ({}, [])
            del ledger.on["Charge"]
            assert (await ledger.charge()).ok

    async def test_a_handler_that_fails_after_its_caller_left_leaves_nothing(
        self, ledger: Ledger, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def fail(message, context):
            await leave_effect("Charge", message.value)
            await ledger.gate.wait()
            raise RuntimeError("secret")

        ledger.on["Charge"] = fail
        with caplog.at_level(logging.INFO, "amends_barrier"):
            await ledger.left_by_its_caller(ledger.charge(timeout=SHORT))
            ledger.gate.set()
            await ledger.barrier.drain()
        assert [record.message for record in caplog.records] == ["barrier.failed_after_caller_left"]
        assert (await ledger.rows(), await ledger.effects()) == ({}, [])

    async def test_a_void_whose_caller_left_holds_nothing_up(self, ledger: Ledger) -> None:
        ledger.on["Charge"] = ledger.gated
        action = asyncio.create_task(ledger.charge())
        await eventually(lambda: ledger.calls, what="the action")
        await ledger.left_by_its_caller(ledger.void(timeout=SHORT))
        ledger.gate.set()
        assert (await action).ok
        assert (await ledger.void()).voided == "already-done"

    async def test_a_stopping_service_waits_for_what_its_callers_left(self, suite_url: str) -> None:
        async with serve(suite_url) as ledger:
            ledger.on["Charge"] = ledger.gated
            await ledger.left_by_its_caller(ledger.charge(timeout=SHORT))
            drained = asyncio.create_task(ledger.barrier.drain())
            await asyncio.sleep(0.05)
            assert not drained.done()
            ledger.gate.set()
            await drained
            assert await ledger.effects() == ["Charge"]


class TestConflicts:
    async def test_a_deadlock_is_unavailable_and_another_try_succeeds(self, ledger: Ledger) -> None:
        locked = {1: asyncio.Event(), 2: asyncio.Event()}

        async def cross(message, context):
            first, second = (1, 2) if message.value == "o-1" else (2, 1)
            add = "UPDATE account SET balance = balance + 1 WHERE id = $1"
            await connection().execute(add, first)
            locked[first].set()
            await locked[second].wait()
            await connection().execute(add, second)
            return message

        ledger.on["Charge"] = cross
        calls = {what: ledger.charge(what, key=what) for what in ("o-1", "o-2")}
        replies = dict(zip(calls, await asyncio.gather(*calls.values()), strict=True))
        assert sorted(reply.reason for reply in replies.values()) == ["", "TRANSACTION_CONFLICT"]
        (victim,) = [what for what, reply in replies.items() if not reply.ok]
        assert (replies[victim].code, replies[victim].guarded) == (StatusCode.UNAVAILABLE, True)
        assert await ledger.rows(victim) == {}
        assert (await ledger.charge(victim, key=victim)).ok
        assert {row["balance"] for row in await ledger.pool.fetch("SELECT balance FROM account")} == {2}

    @pytest.mark.parametrize("where", ["in the handler", "at commit"])
    async def test_a_serialisation_failure_is_unavailable_and_another_try_succeeds(
        self, suite_url: str, where: str
    ) -> None:
        async with serve(suite_url, default_transaction_isolation="serializable") as ledger:
            both = asyncio.Barrier(2)

            async def skew(message, context):
                mine, its = (1, 2) if message.value == "o-1" else (2, 1)
                if where == "in the handler":
                    mine = its = 1
                await connection().fetchval("SELECT balance FROM account WHERE id = $1", its)
                if not ledger.gate.is_set():
                    await both.wait()
                await connection().execute("UPDATE account SET balance = balance + 1 WHERE id = $1", mine)
                if not ledger.gate.is_set() and where == "at commit":
                    await both.wait()
                return message

            ledger.on["Charge"] = skew
            replies = await asyncio.gather(*(ledger.charge(what, key=what) for what in ("o-1", "o-2")))
            assert sorted(reply.reason for reply in replies) == ["", "TRANSACTION_CONFLICT"]
            ledger.gate.set()
            for what in ("o-1", "o-2"):
                assert (await ledger.charge(what, key=what)).ok
            assert await ledger.pool.fetchval("SELECT sum(balance) FROM account") == 2

    async def test_a_lock_that_the_service_does_not_wait_for_is_unavailable(
        self, suite_url: str, ledger: Ledger
    ) -> None:
        async with serve(suite_url, lock_timeout="20ms") as impatient:
            ledger.on["Charge"] = ledger.gated
            action = asyncio.create_task(ledger.charge())
            await eventually(lambda: ledger.calls, what="the action")
            assert (await impatient.charge()).reason == "TRANSACTION_CONFLICT"
            ledger.gate.set()
            stored = (await action).response
            assert (await impatient.charge()).response == stored

    async def test_a_conflict_without_a_key_is_unavailable_too(self, ledger: Ledger) -> None:
        async def conflict(message, context):
            await connection().execute("DO 'BEGIN RAISE SQLSTATE ''40001''; END'")

        ledger.on["Charge"] = conflict
        reply = await ledger.call("Charge", key=None)
        assert (reply.code, reply.reason, reply.guarded) == (StatusCode.UNAVAILABLE, "TRANSACTION_CONFLICT", False)


class DiesAtRelease:
    """A pool whose connections are ended by the server while they are given back."""

    def __init__(self, pool) -> None:
        self._pool = pool

    def acquire(self, *, timeout: float | None = None):
        return self._pool.acquire(timeout=timeout)

    async def release(self, held) -> None:
        await self._pool.release(held)
        raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")


def answering(response: bytes):
    async def work() -> bytes:
        return response

    return work


class TestLostConnections:
    async def kill(self, ledger: Ledger, condition: str) -> None:
        await ledger.pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = current_database() AND pid <> pg_backend_pid() AND {condition}"
        )

    async def test_a_connection_killed_in_the_handler_leaves_nothing(self, ledger: Ledger) -> None:
        ledger.on["Charge"] = ledger.gated
        call = asyncio.create_task(ledger.charge())
        await eventually(lambda: ledger.calls, what="the action")
        await self.kill(ledger, "state = 'idle in transaction'")
        ledger.gate.set()
        reply = await call
        assert (reply.code, reply.reason) == (StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
        assert reply.guarded
        assert (await ledger.rows(), await ledger.effects()) == ({}, [])
        assert (await ledger.charge()).ok
        assert await ledger.effects() == ["Charge"]

    async def test_a_connection_killed_at_commit_leaves_nothing(self, ledger: Ledger, suite_url: str) -> None:
        async with held_at_commit(suite_url):
            call = asyncio.create_task(ledger.charge())
            await ledger.waiting()
            await self.kill(ledger, "wait_event_type = 'Lock'")
            reply = await call
            assert (reply.code, reply.reason) == (StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
            assert await ledger.rows() == {}
        assert (await ledger.charge()).ok
        assert await ledger.effects() == ["Charge"]

    async def test_a_connection_that_dies_before_the_rollback_changes_nothing_of_a_refusal(
        self, ledger: Ledger, suite_url: str
    ) -> None:
        killer = await asyncpg.connect(suite_url)

        async def decline(message, context):
            await leave_effect("Charge", message.value)
            await killer.execute("SELECT pg_terminate_backend($1)", connection().get_server_pid())
            await context.abort(StatusCode.FAILED_PRECONDITION, "declined")

        ledger.on["Charge"] = decline
        for number in range(20):  # whether the end is noticed before the rollback or by it is chance
            reply = await ledger.charge(key=f"k-{number}")
            assert reply.code in (StatusCode.FAILED_PRECONDITION, StatusCode.UNAVAILABLE)
            assert reply.guarded
            assert await ledger.rows(f"k-{number}") == {}
        await killer.close()

    async def test_a_connection_that_dies_after_the_commit_changes_nothing_of_its_answer(self, ledger: Ledger) -> None:
        guard = Guard(DiesAtRelease(ledger.pool))  # type: ignore[arg-type]
        stored = await guard.answer(GuardedCall("k-1", Operation.ACTION), b"digest", answering(b"charged"))
        assert stored.response == b"charged"
        again = await guard.answer(GuardedCall("k-1", Operation.ACTION), b"digest", answering(b"never"))
        assert again.response == b"charged"
        with pytest.raises(BarrierError, match="KEY_REUSED"):
            await guard.answer(GuardedCall("k-1", Operation.ACTION), b"another digest", answering(b"never"))

    async def test_a_commit_whose_acknowledgement_is_lost_is_found_by_the_retry(self, suite_url: str) -> None:
        async with proxied(suite_url) as (url, cut), serve(url) as ledger:
            await ledger.charge(key="warm-up", what="warm-up")
            cut.set()
            reply = await ledger.charge()
            assert (reply.code, reply.reason) == (StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
            assert not cut.is_set()
            assert (await ledger.charge()).text.startswith("Charge")
            assert ledger.calls[1:] == ["Charge o-1"]
            assert await ledger.effects() == ["Charge"]

    async def test_a_server_that_is_down_is_unavailable_until_it_is_back(
        self, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        from .ledger import make_tables

        async with await Postgres.start(tmp_path_factory.mktemp("own")) as server:
            url = await server.create("ledger", "ledger")
            await make_tables(url)
            async with serve(url) as ledger:
                assert (await ledger.charge()).ok
                server.kill()

                async def gone() -> bool:
                    return not (await ledger.charge()).ok

                await eventually(gone, what="the end of the server's processes")
                for call in (ledger.charge(), ledger.refund(), ledger.void()):
                    reply = await call
                    assert (reply.code, reply.reason) == (StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
                    assert reply.guarded
                    assert "127.0.0.1" not in reply.details
                await server.restart()
                assert (await ledger.charge()).ok
                assert await ledger.effects() == ["Charge"]


@pytest.mark.parametrize("forgotten", ["amends_%", "amends_insert_%", "amends_undo_%"])
async def test_a_session_that_forgot_its_statements_prepares_them_again(suite_url: str, forgotten: str) -> None:
    async with serve(suite_url, connections=1) as ledger:
        for call, what in ((ledger.charge, "Charge"), (ledger.refund, "Refund")):
            names = await ledger.pool.fetch("SELECT name FROM pg_prepared_statements WHERE name LIKE $1", forgotten)
            assert what == "Charge" or names
            for row in names:
                await ledger.pool.execute(f"DEALLOCATE {row['name']}")
            assert (await call()).text.startswith(what)
        assert await ledger.effects() == ["Charge", "Refund"]


async def test_two_barriers_may_share_a_pool(ledger: Ledger) -> None:
    guards = [Guard(ledger.pool) for _ in range(3)]
    for number, guard in enumerate(guards * 5):
        answer = await guard.answer(
            GuardedCall(f"k-{number}", Operation.VOID), b"", lambda: pytest.fail("must not run")
        )
        assert answer.voided == "voided"


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A way to the database that, once the event is set, loses the answer to the next COMMIT and hangs up."""
    cut = asyncio.Event()
    parts = urlsplit(url)
    tasks: set[asyncio.Task[None]] = set()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(parts.hostname, parts.port)
        losing = False

        async def up() -> None:
            nonlocal losing
            while data := await reader.read(65536):
                if cut.is_set() and b"; COMMIT" in data:
                    cut.clear()
                    losing = True
                up_writer.write(data)
            up_writer.close()

        async def down() -> None:
            while data := await up_reader.read(65536):
                if losing:
                    break
                writer.write(data)
            writer.close()

        await asyncio.gather(up(), down())

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve_one(reader, writer))
        tasks.add(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}").geturl(), cut
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_errors_of_the_handler_itself_are_not_taken_for_the_databases(ledger: Ledger) -> None:
    async def refuse(message: StringValue, context: object) -> StringValue:
        raise ConnectionRefusedError("another service")

    ledger.on["Charge"] = refuse
    reply = await ledger.charge()
    assert (reply.code, reply.reason, reply.guarded) == (StatusCode.UNKNOWN, "", True)


class TestAServerThatBecameAStandby:
    """Sessions that were opened while nothing could be written stay read-only; new ones can write."""

    async def test_the_pool_is_renewed_after_one_refusal(self, ledger: Ledger, suite_url: str) -> None:
        role = urlsplit(suite_url).username
        admin = await asyncpg.connect(suite_url)
        await admin.execute(f"ALTER ROLE {role} SET default_transaction_read_only = on")
        await ledger.pool.expire_connections()
        async with ledger.pool.acquire(), ledger.pool.acquire():
            pass  # opened now, and read-only from here on
        await admin.execute("SET default_transaction_read_only = off")
        await admin.execute(f"ALTER ROLE {role} RESET default_transaction_read_only")
        await admin.close()
        refused = await ledger.charge()
        assert (refused.code, refused.reason) == (StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
        assert [(await ledger.charge(key=f"k-{number}")).code for number in range(4)] == [StatusCode.OK] * 4

    async def test_also_when_the_handler_makes_an_error_of_its_own_of_it(self, ledger: Ledger) -> None:
        async def read_only(message: StringValue, context: object) -> StringValue:
            await connection().execute("SET TRANSACTION READ ONLY")
            try:
                await leave_effect("Charge", message.value)
            except asyncpg.PostgresError as error:
                raise ValueError("my own") from error
            raise AssertionError("nothing could be written")

        async with ledger.pool.acquire() as one:
            before = one.get_server_pid()
        ledger.on["Charge"] = read_only
        await ledger.charge()
        async with ledger.pool.acquire() as one, ledger.pool.acquire() as other:
            assert before not in (one.get_server_pid(), other.get_server_pid())
