"""A small participant on real Postgres: charges and refunds, as scripted by the test, and a caller for it.

`effect` records each effect in the transaction of its call: what a test finds there has really happened.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import grpc
import grpc.aio
from amends_barrier import Barrier, Guarded, before, connection
from amends_testkit.waiting import eventually
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

SERVICE = "test.v1.Ledger"
METHODS = {
    f"/{SERVICE}/Charge": Guarded(compensated_by="Refund"),
    f"/{SERVICE}/Refund": Guarded(compensates=("Charge",)),
}
TABLES = """
CREATE TABLE effect (number bigserial, name text, what text);
CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL);
INSERT INTO account VALUES (1, 0), (2, 0);
"""

Behavior = Callable[[StringValue, Any], Awaitable[StringValue]]


@dataclass(frozen=True)
class Reply:
    """What a caller got."""

    code: grpc.StatusCode
    response: bytes
    trailers: dict[str, Any]
    details: str

    @property
    def text(self) -> str:
        return StringValue.FromString(self.response).value

    @property
    def reason(self) -> str:
        status = Status.FromString(self.trailers.get("grpc-status-details-bin", b""))
        for detail in status.details:
            info = ErrorInfo()
            assert detail.Unpack(info)
            assert info.domain == "amends.dev"
            assert status.message == self.details
            return str(info.reason)
        return ""

    @property
    def ok(self) -> bool:
        return self.code is grpc.StatusCode.OK

    @property
    def guarded(self) -> bool:
        return self.trailers.get("amends-barrier") == "1"

    @property
    def voided(self) -> str:
        return str(self.trailers.get("amends-void", ""))


def request(what: str) -> bytes:
    return StringValue(value=what).SerializeToString()


async def leave_effect(name: str, what: str) -> int:
    """Have an effect in the barrier's transaction; its number."""
    number = await connection().fetchval("INSERT INTO effect (name, what) VALUES ($1, $2) RETURNING number", name, what)
    assert isinstance(number, int)
    return number


class Watcher(grpc.aio.ServerInterceptor):
    """Counts the calls whose callers left before the answer, once everything inside has noticed."""

    left = 0

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        inner = await continuation(handler_call_details)

        async def serve(message: Any, context: Any) -> Any:
            try:
                return await inner.unary_unary(message, context)
            except asyncio.CancelledError:
                self.left += 1
                raise

        return grpc.unary_unary_rpc_method_handler(serve, inner.request_deserializer, inner.response_serializer)


class Ledger:
    """A running participant. `on` replaces what a method does."""

    def __init__(self, url: str, pool: Any, barrier: Barrier) -> None:
        self.url = url
        self.pool = pool
        self.barrier = barrier
        self.on: dict[str, Behavior] = {}
        self.first: dict[str, Callable[[StringValue], Awaitable[None]]] = {}
        self.calls: list[str] = []
        self.gate = asyncio.Event()
        self.watcher = Watcher()
        self.channel: Any = None

    async def do(self, name: str, message: StringValue, context: Any) -> StringValue:
        self.calls.append(f"{name} {message.value}")
        if name in self.on:
            return await self.on[name](message, context)
        number = await leave_effect(name, message.value)
        return StringValue(value=f"{name} {number}")

    async def prepare(self, name: str, message: StringValue) -> None:
        if name in self.first:
            await self.first[name](message)

    async def gated(self, message: StringValue, context: Any) -> StringValue:
        """A behaviour that has its effect, and then waits for the gate before it answers."""
        number = await leave_effect("Charge", message.value)
        await self.gate.wait()
        return StringValue(value=f"Charge {number}")

    async def call(
        self,
        method: str,
        what: str | bytes = "o-1",
        *,
        key: str | None = "k-1",
        timeout: timedelta | None = None,
        **metadata: str,
    ) -> Reply:
        """Call a method. Metadata by their names without `amends-`, with underscores: operation="void"."""
        said = [(f"amends-{name.replace('_', '-')}", value) for name, value in metadata.items()]
        if key is not None:
            said.append(("amends-idempotency-key", key))
        call = self.channel.unary_unary(f"/{SERVICE}/{method}")(
            what if isinstance(what, bytes) else request(what),
            metadata=tuple(said),
            timeout=None if timeout is None else timeout.total_seconds(),
        )
        try:
            response = await call
        except grpc.aio.AioRpcError as error:
            trailers = dict(error.trailing_metadata() or ())
            return Reply(error.code(), b"", trailers, error.details() or "")
        return Reply(grpc.StatusCode.OK, response, dict(await call.trailing_metadata()), "")

    async def charge(self, what: str = "o-1", **more: Any) -> Reply:
        return await self.call("Charge", what, operation="action", **more)

    async def refund(self, what: str = "o-1", outcome: str = "unknown", **more: Any) -> Reply:
        return await self.call("Refund", what, operation="compensation", action_outcome=outcome, **more)

    async def void(self, of: str = "action", **more: Any) -> Reply:
        return await self.call("Charge", b"no message", operation="void", void_of=of, **more)

    async def left_by_its_caller(self, call: Awaitable[Reply]) -> None:
        """Await a call that runs into its caller's deadline, until the service knows it."""
        before = self.watcher.left
        assert (await call).code is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: self.watcher.left > before, what="the end of the call")

    async def effects(self, what: str = "o-1") -> list[str]:
        rows = await self.pool.fetch("SELECT name FROM effect WHERE what = $1 ORDER BY number", what)
        return [row["name"] for row in rows]

    async def rows(self, key: str = "k-1") -> dict[str, bytes | None]:
        """What the barrier holds of a key: response by operation, None for void."""
        rows = await self.pool.fetch("SELECT operation, response FROM barrier WHERE idempotency_key = $1", key)
        return {row["operation"]: row["response"] for row in rows}

    async def waiting(self, sessions: int = 1) -> None:
        """Return once so many sessions wait for somebody's lock."""

        async def enough() -> bool:
            count = await self.pool.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return bool(count >= sessions)

        await eventually(enough, what=f"{sessions} waiting sessions")


async def make_tables(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(Barrier.schema() + TABLES)
    await connection.execute(Barrier.schema())  # again, as a careless migration would
    await connection.close()


@asynccontextmanager
async def serve(
    url: str,
    *,
    finish: timedelta = timedelta(seconds=10),
    connections: int = 12,
    outer: Iterable[grpc.aio.ServerInterceptor] = (),
    **settings: str,
) -> AsyncIterator[Ledger]:
    """Run a ledger over emptied tables until the block ends."""
    async with asyncpg.create_pool(url, min_size=1, max_size=connections, server_settings=settings) as pool:
        await pool.execute("TRUNCATE barrier, effect; UPDATE account SET balance = 0")
        barrier = Barrier(pool, METHODS, finish=finish)
        ledger = Ledger(url, pool, barrier)
        server = grpc.aio.server(
            interceptors=[ledger.watcher, *outer, barrier.interceptor()], options=[("grpc.so_reuseport", 0)]
        )
        server.add_generic_rpc_handlers([_handlers(ledger)])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                ledger.channel = channel
                yield ledger
        finally:
            ledger.gate.set()
            await server.stop(None)
            await barrier.drain()


def _handlers(ledger: Ledger) -> grpc.GenericRpcHandler:
    def method(name: str) -> Any:
        @before(lambda _, message: ledger.prepare(name, message))
        async def behavior(message: StringValue, context: Any) -> StringValue:
            return await ledger.do(name, message, context)

        return grpc.unary_unary_rpc_method_handler(
            behavior,
            request_deserializer=StringValue.FromString,
            response_serializer=StringValue.SerializeToString,
        )

    return grpc.method_handlers_generic_handler(SERVICE, {name: method(name) for name in ("Charge", "Refund", "Plain")})
