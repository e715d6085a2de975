"""Every suite gets a database of its own per test."""

import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest


async def test_a_test_gets_an_empty_database_in_which_it_may_do_everything(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    await connection.execute("CREATE TABLE t (n int)")
    await connection.close()


async def test_two_databases_of_one_test_are_strangers(make_database) -> None:
    first, second = await make_database(), await make_database()
    assert first.rsplit("/", 1)[1] != second.rsplit("/", 1)[1]
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(first.rsplit("/", 1)[0] + "/" + second.rsplit("/", 1)[1])


async def test_a_database_is_gone_after_its_test(postgres) -> None:
    connection = await asyncpg.connect(postgres.admin_url)
    databases = await connection.fetchval("SELECT count(*) FROM pg_database WHERE datname LIKE 'test_%'")
    await connection.close()
    assert databases == 0


def test_what_tests_have_counted_is_said_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(record_property): record_property('counted', '7 of 7 places')\n")
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(tmp_path), "test_it.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "counted" in done.stdout
    assert "\n7 of 7 places\n" in done.stdout


def test_what_skipped_tests_would_need_is_said_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.mark.skip(reason='needs Go')\ndef test_marked(): ...\n"
        "def test_inside(): pytest.skip('needs Go')\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(tmp_path), "test_it.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "\n2: needs Go\n" in done.stdout
