"""The pytest plugin: real servers for tests, started at most once a session.

Registered as an entry point, so every suite has the fixtures. Everything heavy is imported inside: a run of pure
tests pays nothing for it.
"""

import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from amends_embedded import Nats, Postgres, Valkey

    from amends_testkit.kafka import Kafka
    from amends_testkit.kubernetes import Kubernetes

_numbers = itertools.count(1)
SHARED = "kafka"
"""What is so costly to start and to keep that only one process of a run should have it: the tests share it in turn."""
MARKED = "kubernetes"
"""The fixture whose tests have a marker of its name, so that they run when somebody asks for them."""
LONG = 120.0
"""Seconds; a test that may take longer says so by its `timeout`."""
COUNTED = "counted"
"""Under this name a test records, with `record_property`, what it has enumerated: shown at the end of the run."""


@pytest.hookimpl(tryfirst=True)  # after the shuffle, before names get their group
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark and group the tests that need a costly server, and begin with the files that take longest."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if SHARED in fixtures or SHARED in item.name:  # a parameter asks for it, too
            item.add_marker(pytest.mark.xdist_group(SHARED))
        if MARKED in fixtures:
            item.add_marker(MARKED)
    long = {item.path for item in items if _may_be_long(item)}
    items.sort(key=lambda item: (not list(item.iter_markers("xdist_group")), item.path not in long))


def _may_be_long(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("timeout")
    return marker is not None and bool(marker.args) and marker.args[0] > LONG


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each process whole files and whole groups: what a file's tests share is made once."""
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    class ByFileOrGroup(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            _, at, group = nodeid[nodeid.rfind("]") + 1 :].rpartition("@")
            return group if at else nodeid.split("::", 1)[0]

    return ByFileOrGroup(config, log) if config.getoption("dist") == "loadgroup" else None


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print how many cases were enumerated, and what the skipped tests would need, so that a reader can check it."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    properties = [one for report in reports for one in getattr(report, "user_properties", ())]
    counted = [value for name, value in properties if name == COUNTED]
    if counted:
        terminalreporter.section("counted")
        for line in sorted(counted):
            terminalreporter.write_line(line)
    reasons = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", ()))
    if reasons:
        terminalreporter.section("skipped")
        for reason, number in reasons.most_common():
            terminalreporter.write_line(f"{number}: {reason}")


def _reason(report: Any) -> str:
    """Return why a test was skipped; pytest reports it as path, line and message."""
    if isinstance(report.longrepr, tuple | list):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return str(report.longrepr)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres(tmp_path_factory: pytest.TempPathFactory) -> "AsyncIterator[Postgres]":
    """Start a real server for the whole session. A test that kills or stops it must start its own.

    What it has committed would not outlive a loss of power: a thousand databases are made and dropped in it.
    """
    from amends_embedded import Postgres

    async with await Postgres.start(tmp_path_factory.mktemp("postgres"), settings={"fsync": "off"}) as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def make_database(postgres: "Postgres") -> AsyncIterator[Callable[[], Awaitable[str]]]:
    """Make fresh, empty databases, each with a role of its own; they are dropped after the test."""
    made: list[str] = []

    async def make() -> str:
        name = f"test_{next(_numbers)}"
        made.append(name)
        return await postgres.create(name, name)

    yield make
    for name in made:
        await postgres.drop(name, name)


@pytest_asyncio.fixture(loop_scope="session")
async def database_url(make_database: Callable[[], Awaitable[str]]) -> str:
    """Return the URL of a fresh, empty database of this test alone."""
    return await make_database()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def nats(tmp_path_factory: pytest.TempPathFactory) -> "AsyncIterator[Nats]":
    """Start a real NATS server for the whole session. A test that kills or stops it must start its own."""
    from amends_embedded import Nats

    async with await Nats.start(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def valkey(tmp_path_factory: pytest.TempPathFactory) -> "AsyncIterator[Valkey]":
    """Start a real Valkey server for the whole session. A test that kills or stops it must start its own."""
    from amends_embedded import Valkey

    async with await Valkey.start(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kafka(tmp_path_factory: pytest.TempPathFactory) -> "AsyncIterator[Kafka]":
    """Start a real Kafka for the session; skip, and say how to get one, where there are no programs of it."""
    from amends_testkit.kafka import HOW_TO_GET, Kafka, libraries

    jars = libraries()
    if jars is None:
        pytest.skip(HOW_TO_GET)
    async with await Kafka.start(tmp_path_factory.mktemp("kafka"), jars) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> "AsyncIterator[Kubernetes]":
    """Start a real API server for the session; skip, and say how to get one, where its programs are missing."""
    from amends_testkit.kubernetes import HOW_TO_GET, Kubernetes, assets

    programs = assets()
    if programs is None:
        pytest.skip(HOW_TO_GET)
    async with await Kubernetes.start(tmp_path_factory.mktemp("kubernetes"), programs) as server:
        yield server
