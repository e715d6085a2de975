"""A real broker of each kind, with topics of each test's own, and one database that is emptied for each."""

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from amends_embedded import Nats, Postgres
from amends_events import INBOX, OUTBOX, Broker, Topic, open_broker
from amends_events import partition as reading

from .world import EFFECTS, EMPTIED, Named, own_kafka, own_nats

_numbers = itertools.count(1)
RETENTION = timedelta(hours=1)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def nats_client(nats: Nats) -> AsyncIterator[Broker]:
    client = open_broker(nats.url)
    yield client
    await client.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kafka_client(kafka) -> AsyncIterator[Broker]:
    client = open_broker(kafka.url)
    yield client
    await client.close()


@pytest.fixture(params=["nats", "kafka"])
def client(request: pytest.FixtureRequest) -> Broker:
    """The client of one kind of broker."""
    return request.getfixturevalue(f"{request.param}_client")


@pytest_asyncio.fixture(loop_scope="session")
async def topic(client: Broker) -> Topic:
    """An empty topic of this test alone."""
    made = Topic(f"test.t{next(_numbers)}.v1", 2)
    await client.ensure([made], RETENTION)
    return made


@pytest.fixture
def broker(client: Broker) -> Named:
    """The broker, in which this test alone has every topic."""
    return Named(client, f"test.n{next(_numbers)}")


BOTH_IN_FAULTS = ["nats", pytest.param("kafka", marks=pytest.mark.faults)]
"""For what does not depend on the kind of broker: NATS in `make test`, Kafka too in `make faults`."""


@pytest.fixture(params=BOTH_IN_FAULTS)
def either_broker(request: pytest.FixtureRequest) -> Named:
    """The broker, in which this test alone has every topic, for what does not depend on its kind."""
    return Named(request.getfixturevalue(f"{request.param}_client"), f"test.n{next(_numbers)}")


@pytest.fixture(params=BOTH_IN_FAULTS)
def own(request: pytest.FixtureRequest, tmp_path) -> Callable[[], AbstractAsyncContextManager[tuple[Any, Broker]]]:
    """Opens a server of the test's own, which it may kill, and a client of it."""
    opened = {"nats": own_nats, "kafka": own_kafka}[request.param]
    return lambda: opened(tmp_path)


@pytest.fixture
def nats_broker(nats_client: Broker) -> Named:
    """The same for what does not depend on the kind of broker."""
    return Named(nats_client, f"test.n{next(_numbers)}")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def events_url(postgres: Postgres) -> str:
    url = await postgres.create("events_suite", "events_suite")
    connection = await asyncpg.connect(url)
    await connection.execute(OUTBOX + INBOX + EFFECTS)
    await connection.close()
    return url


@pytest_asyncio.fixture(loop_scope="session")
async def pool(events_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(events_url, min_size=1, max_size=10) as made:
        await made.execute(EMPTIED)
        yield made


@pytest.fixture
def hurried(monkeypatch):
    """A consumer pauses and looks often."""
    monkeypatch.setattr(reading, "BACKOFF", replace(reading.BACKOFF, initial=timedelta(milliseconds=2)))
    monkeypatch.setattr(reading, "LOOK_EVERY", timedelta(milliseconds=20))
    monkeypatch.setattr(reading, "WAIT", timedelta(milliseconds=50))
