"""`python -m shop_reporting rebuild` as a process of its own, over a real log and real exports."""

import asyncio
import os
import sys
from datetime import UTC
from pathlib import Path
from typing import Any

import grpc.aio
from amends_chassis.projections import command, versions
from amends_embedded import Nats
from amends_events import open_broker
from amends_testkit.log import RETENTION, PrefixedBroker
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import SecretStr
from shop_reporting import parts
from shop_reporting.facts import SOURCES
from shop_reporting.projection import LAYOUT, OrderProjection
from shop_reporting.settings import Settings

from amends.events.v1 import export_pb2
from amends.events.v1.export_pb2_grpc import ExportServiceServicer, add_ExportServiceServicer_to_server

from .test_rebuild import beside, caught_up, consumes, ignore
from .world import TOPICS, Kept, Told, interleaved, orders, rows, split


class Exporting(ExportServiceServicer):
    """The export of one service, which can be made to stand still before its second page."""

    def __init__(self, told: list[Told], stands_still: bool = False) -> None:
        self._pages = list(split(told, 40))
        self.stands_still = stands_still
        self.reached = asyncio.Event()
        self.begun = 0

    async def Export(self, request: Any, context: Any) -> export_pb2.ExportResponse:
        number = int(request.page_token or 0)
        self.begun += number == 0
        if number == 1 and self.stands_still:
            self.reached.set()
            await asyncio.Event().wait()
        more = number + 1 < len(self._pages)
        events = [exported(one) for one in self._pages[number]]
        return export_pb2.ExportResponse(events=events, next_page_token=str(number + 1) if more else "")


def exported(told: Told) -> export_pb2.ExportedEvent:
    occurred_at = Timestamp()
    occurred_at.FromDatetime(told.at.astimezone(UTC))
    return export_pb2.ExportedEvent(
        type=told.kind,
        key=told.key,
        version=told.version,
        occurred_at=occurred_at,
        payload=told.message.SerializeToString(),
    )


async def rebuild(environment: dict[str, str], *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "shop_reporting", "rebuild", *arguments),
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def making(settings: Settings) -> command.MakeRebuild:
    return lambda runtime: parts.rebuild(settings, runtime, ignore)


async def said(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_a_rebuild_that_is_killed_while_events_flow_goes_on_and_ends_in_the_same_rows(
    database, database_url, projection, tmp_path: Path
):
    of = orders(60)
    told = interleaved(of)
    kept = Kept(of)
    exporting = {source.name: Exporting(kept.of(source.name), source.name == "payments") for source in SOURCES}
    async with await Nats.start(tmp_path / "nats") as nats:
        client = open_broker(nats.url)
        broker = PrefixedBroker(client, TOPICS)
        await client.ensure(TOPICS, RETENTION)
        await broker.tell(told[:250])
        environment = {"AMENDS_DATABASE_URL": database_url, "AMENDS_BROKER": nats.url}
        servers = []
        for source, servicer in exporting.items():
            server = grpc.aio.server()
            add_ExportServiceServicer_to_server(servicer, server)
            environment[f"AMENDS_{source.upper()}_TARGET"] = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
            await server.start()
            servers.append(server)

        async with beside(consumes(database, broker)(projection)):
            first = await rebuild(environment, "--export")
            await asyncio.wait_for(exporting["payments"].reached.wait(), 60)
            first.kill()
            assert await first.wait() == -9
            await broker.tell(told[250:])
            assert (await versions.serving(database.pool)).version == 1
            exporting["payments"].stands_still = False
            assert (code := await said(await rebuild(environment)))[:2] == (0, "projection 2 serves\n"), code
            await caught_up(database, broker, projection)
        async with beside(consumes(database, broker)(OrderProjection(2, ignore))):
            await caught_up(database, broker, OrderProjection(2, ignore))
        assert await rows(database.pool) == await rows(database.pool, "r1")
        assert {source: servicer.begun for source, servicer in exporting.items()} == dict.fromkeys(exporting, 1)

        for server in servers:
            await server.stop(None)
        await client.close()


async def test_a_service_that_does_not_export_is_named_and_what_was_done_is_kept(
    database, database_url, projection, nats, capsys
):
    client = open_broker(nats.url)
    await client.ensure(TOPICS, RETENTION)
    await client.close()
    nobody = dict.fromkeys((f"{source.name}_target" for source in SOURCES), "127.0.0.1:1")
    settings = Settings(database_url=SecretStr(database_url), broker=SecretStr(nats.url), **nobody)
    assert await command.rebuild(settings, making(settings), export=True) == 69
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "EXPORT_FAILED: orders does not export: UNAVAILABLE",
        "What was done is kept: call it again when that service is there.",
    ]
    assert (await versions.serving(database.pool)).version == 1
    assert (await versions.unfinished(database.pool, LAYOUT)).from_export


async def test_who_comes_while_another_builds_is_told_to_come_again(database, database_url, nats, capsys):
    nobody = dict.fromkeys((f"{source.name}_target" for source in SOURCES), "127.0.0.1:1")
    settings = Settings(database_url=SecretStr(database_url), broker=SecretStr(nats.url), **nobody)
    async with versions.alone(database):
        assert await command.rebuild(settings, making(settings), export=False) == 75
    assert capsys.readouterr().err == "another process builds a projection\n"
