"""The operator's health over HTTP, on each family of addresses."""

from datetime import timedelta

import aiohttp
import pytest
from amends_chassis.hosts import to_listen_on
from amends_operator.health import HealthServer, Heartbeats
from prometheus_client import CollectorRegistry


@pytest.mark.skipif(to_listen_on("::") != "::", reason="this machine has no IPv6")
@pytest.mark.parametrize(
    ("host", "reached"), [("::1", "[::1]"), ("[::1]", "[::1]"), ("::", "[::1]"), ("[::]", "127.0.0.1")]
)
async def test_health_is_served_on_ipv6(host: str, reached: str, unused_tcp_port: int) -> None:
    server = HealthServer(Heartbeats(timedelta(seconds=60)), lambda: True, CollectorRegistry())
    await server.start(host, unused_tcp_port)
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{reached}:{unused_tcp_port}/readyz") as answer,
        ):
            assert answer.status == 200
    finally:
        await server.close()
