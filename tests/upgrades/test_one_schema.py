"""An old and a new version of a service on one database: the new one expands the schema, both serve, the old one too.

The new version is made here: the payments service as it is, with one more migration and code that uses it. Both run
as processes, as the chart runs them: `migrate` first, in a process of its own, then the service.
"""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import grpc.aio
import pytest
from amends_embedded import Child, Children, Postgres
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

from shop.payments.v1 import payments_pb2
from shop.payments.v1.payments_pb2_grpc import PaymentServiceStub
from shop.types.v1 import types_pb2

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "services" / "payments" / "src"
EXPAND = "ALTER TABLE payment ADD COLUMN statement text NOT NULL DEFAULT 'written by the old version';\n"
READY = timedelta(seconds=30)


@dataclass
class Payments:
    """The service in two versions, on one database."""

    folder: Path
    url: str
    children: Children
    sources: dict[str, Path]

    def _environment(self, version: str) -> dict[str, str]:
        return {"AMENDS_DATABASE_URL": self.url, "PYTHONPATH": str(self.sources[version])}

    async def migrate(self, version: str) -> str:
        """What the init container does; its log. Fails the test when it fails."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "shop_payments", "migrate"),
            env=os.environ | self._environment(version),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said = (await process.communicate())[0].decode()
        assert process.returncode == 0, said
        return said

    async def serve(self, version: str) -> str:
        """Starts the service; its address, once it is ready."""
        child = Child.start(
            version,
            [sys.executable, "-m", "shop_payments"],
            log=self.folder / f"{version}.log",
            report=self.folder / f"{version}.json",
            environment=self._environment(version),
        )
        self.children.add(child)
        address = str((await child.ready(READY))["grpc"])
        async with grpc.aio.insecure_channel(address) as channel:
            health: Any = HealthStub(channel)
            asked = HealthCheckRequest(service="readiness")
            for _ in range(200):
                if (await health.Check(asked, wait_for_ready=True, timeout=10)).status == 1:
                    return address
                await asyncio.sleep(0.05)
        raise AssertionError(child.tail())

    async def rows(self, query: str) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.url)
        try:
            return list(await connection.fetch(query))
        finally:
            await connection.close()


@pytest.fixture
async def payments(postgres: Postgres, tmp_path: Path) -> AsyncIterator[Payments]:
    new = tmp_path / "new"
    shutil.copytree(SOURCE, new)
    (new / "shop_payments" / "migrations" / "0099_statement.sql").write_text(EXPAND)
    store = new / "shop_payments" / "store.py"
    text = store.read_text()
    changed = text.replace('card_last_four, disputed)"', 'card_last_four, disputed, statement)"').replace(
        "VALUES ($1, $2, $3, $4, $5, $6, $7)", "VALUES ($1, $2, $3, $4, $5, $6, $7, 'written by the new version')"
    )
    assert changed.count(", statement)") == 1
    assert changed.count("the new version") == 1
    store.write_text(changed)
    name = f"upgrade_{uuid4().hex[:8]}"
    url = await postgres.create(name, name)
    async with Children(grace=timedelta(seconds=10)) as children:
        yield Payments(tmp_path, url, children, {"old": SOURCE, "new": new})


async def charge(address: str, order_id: str) -> str:
    key = uuid4().hex
    told = (("amends-run-id", key), ("amends-step", "charge"), ("amends-operation", "action"))
    request = payments_pb2.ChargeRequest(
        order_id=order_id, amount=types_pb2.Money(currency="EUR", minor=1290), card_token="tok_visa"
    )
    async with grpc.aio.insecure_channel(address) as channel:
        said = await PaymentServiceStub(channel).Charge(
            request, timeout=10, metadata=(*told, ("amends-idempotency-key", key))
        )
    return str(said.payment_id)


async def test_an_old_and_a_new_version_serve_on_one_schema(payments: Payments) -> None:
    await payments.migrate("old")
    old = await payments.serve("old")
    await charge(old, "before")

    said = await payments.migrate("new")
    assert "migration.applied" in said
    await charge(old, "on-the-new-schema-by-the-old")

    new = await payments.serve("new")
    await asyncio.gather(
        *(charge(address, f"both-{n}-{v}") for n in range(10) for v, address in (("o", old), ("n", new)))
    )
    written = {
        row["order_id"]: row["statement"] for row in await payments.rows("SELECT order_id, statement FROM payment")
    }
    assert len(written) == 22
    assert written["before"] == written["both-0-o"] == "written by the old version"
    assert written["both-0-n"] == "written by the new version"


async def test_an_old_version_that_starts_on_the_new_schema_leaves_it_and_serves(payments: Payments) -> None:
    """A rollback: what was expanded stays."""
    await payments.migrate("new")
    await payments.migrate("old")
    await charge(await payments.serve("old"), "after-the-rollback")
    versions = [row["version"] for row in await payments.rows("SELECT version FROM schema_migrations ORDER BY version")]
    assert versions[-1] == 99


async def test_of_replicas_that_migrate_at_once_one_does_it(payments: Payments) -> None:
    said = await asyncio.gather(*(payments.migrate("new") for _ in range(3)))
    applied = sum(text.count("migration.applied") for text in said)
    assert applied == len(list((payments.sources["new"] / "shop_payments/migrations").glob("*.sql")))


async def test_a_migration_waits_for_a_database_that_is_not_there_yet(payments: Payments, postgres: Postgres) -> None:
    """The init container starts before Postgres has made the database."""
    late, owner = f"late_{uuid4().hex[:8]}", payments.url.split("//")[1].split(":")[0]
    payments.url = f"{payments.url.rsplit('/', 1)[0]}/{late}"
    migrating = asyncio.create_task(payments.migrate("old"))
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await payments.rows("SELECT 1")
    connection = await asyncpg.connect(postgres.admin_url)
    await connection.execute(f'CREATE DATABASE "{late}" OWNER "{owner}"')
    await connection.close()
    assert "migration.applied" in await migrating


async def test_an_argument_that_is_not_known_is_refused() -> None:
    told = {"AMENDS_DATABASE_URL": "postgresql://x@127.0.0.1:1/x"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "shop_payments", "migrations"), env=os.environ | told, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == 1
    assert b"migrate" in said
