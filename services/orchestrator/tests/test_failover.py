"""What goes on by itself after the database was read-only for a while: everything that is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import asyncpg
import grpc
import pytest
from amends_testkit.answers import ScriptedAnswer
from amends_testkit.waiting import eventually

from amends.saga.v1 import run_service_pb2 as pb

from .shop import Shop, open_shop, orchestrator, state

REFUSED = ScriptedAnswer.refused(grpc.StatusCode.FAILED_PRECONDITION, text="refunds are closed")


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as shop:
        yield shop


async def test_after_a_failover_every_write_works_again_without_a_restart(postgres, database_url: str, shop: Shop):
    async with orchestrator(database_url) as client:
        await client.apply(shop)
        shop.shipping.script("Book", REFUSED)
        shop.payments.script("Refund", REFUSED)
        run = (await client.start("parked")).run
        assert state(run) == "PARKED"
        role = urlsplit(database_url).username
        admin = await asyncpg.connect(postgres.admin_url)
        await admin.execute(f"ALTER ROLE {role} SET default_transaction_read_only = on")
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role)
        asked = [client.runs.GetRun(pb.GetRunRequest(run_id=run.run_id)) for _ in range(8)]
        await asyncio.gather(*asked, return_exceptions=True)  # opens read-only sessions
        await admin.execute(f"ALTER ROLE {role} RESET default_transaction_read_only")
        await admin.close()

        async def works(call) -> bool:
            try:
                await call()
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise
                return False
            return True

        assert await eventually(lambda: works(lambda: client.apply(shop)))
        assert await eventually(lambda: works(lambda: client.start("after")))
        retry = pb.ResolveRunRequest(
            run_id=run.run_id,
            resolution=pb.RESOLUTION_RETRY,
            expected_seq=run.parked.seq,
            actor="ada",
            reason="the bank is back",
        )
        assert await works(lambda: client.runs.ResolveRun(retry))
