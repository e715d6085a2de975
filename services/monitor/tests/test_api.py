"""The monitor's API: lists in pages, refusals, what is told to Prometheus, and more than one replica."""

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import grpc
import pytest
from amends_chassis.database import Database
from amends_chassis.service import running
from amends_monitor.assemble import assemble
from amends_monitor.definitions import Definitions
from amends_monitor.metrics import FlowMetrics, tell
from amends_monitor.reading import FlowReading
from amends_monitor.retention import expire
from amends_monitor.settings import Settings
from amends_testkit.service import refusal_of
from amends_testkit.waiting import eventually
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from amends.monitor.v1 import monitor_service_pb2 as pb
from amends.monitor.v1.monitor_service_pb2_grpc import MonitorServiceStub
from amends.saga.v1.definition_service_pb2 import Manifest

from .conftest import ORDER, Monitor, new_key

LATE = timedelta(minutes=10)


async def refusal(call: Any) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return refusal_of(error.value)


async def test_late_flows_come_first_and_pages_have_each_flow_once(monitor: Monitor) -> None:
    await monitor.apply()
    now = datetime.now(UTC)
    late = [new_key() for _ in range(3)]
    for number, key in enumerate(late):  # the first is overdue the longest
        await monitor.publish(key, "OrderPlaced", began=now - LATE + timedelta(minutes=number))
    others = [new_key() for _ in range(4)]
    for number, key in enumerate(others):  # the last one began last
        await monitor.publish(key, "OrderPlaced", "OrderRejected", began=now - LATE + timedelta(minutes=number))
    expected = [*late, *reversed(others)]
    for key in expected:
        await monitor.until(key, pb.FLOW_STATE_LATE if key in late else pb.FLOW_STATE_ENDED_UNDONE)
    found: list[str] = []
    token = ""
    while True:
        page = await monitor.list(choreography=monitor.name, page_size=2, page_token=token)
        assert len(page.flows) <= 2
        found += [flow.key for flow in page.flows]
        token = page.next_page_token
        if not token:
            break
    mine = [key for key in found if key in expected]
    assert mine == expected
    assert len(found) == len(set(found))
    only = await monitor.list(pb.FLOW_STATE_ENDED_UNDONE, choreography=monitor.name, page_size=1000)
    assert [flow.key for flow in only.flows if flow.key in expected] == others[::-1]


async def test_a_broken_choreography_is_refused_and_what_was_watched_stays(monitor: Monitor) -> None:
    good = await monitor.apply()
    broken = await monitor.apply(ORDER.replace("      ends: Well\n", ""))
    assert not broken.accepted
    assert [finding.code for finding in broken.findings] == ["AM094"]
    assert broken.findings[0].line > 0
    assert broken.choreography.digest == good.choreography.digest
    without = await monitor.stub.ApplyChoreography(pb.ApplyChoreographyRequest(manifest=Manifest(text=ORDER)))
    assert [finding.code for finding in without.findings] == ["AM025"]


@pytest.mark.parametrize(
    "text", ["", "a: [", "kind: Choreography", "\0", "apiVersion: amends.dev/v1alpha1\nkind: Choreography"]
)
async def test_what_cannot_be_read_is_refused_with_findings(monitor: Monitor, text: str) -> None:
    answer = await monitor.apply(text)
    assert not answer.accepted
    assert not (await monitor.stub.ListChoreographies(pb.ListChoreographiesRequest())).choreographies


async def test_other_kinds_and_several_at_once_are_refused(monitor: Monitor) -> None:
    step = '{name: a, call: a.v1.S/M, request: "x"}'
    saga = (
        f"apiVersion: amends.dev/v1alpha1\nkind: Saga\nmetadata: {{name: a}}\nspec: {{input: a.B, steps: [{step}]}}\n"
    )
    for text in (f"{ORDER}---\n{saga}", f"{ORDER}---\n{ORDER.replace('name: place-order', 'name: other')}"):
        assert await refusal(monitor.apply(text)) == ("INVALID_ARGUMENT", "NO_CHOREOGRAPHY")


async def test_hostile_requests_are_refused(monitor: Monitor) -> None:
    stub = monitor.stub
    for call, reason in (
        (stub.ListFlows(pb.ListFlowsRequest(page_size=1001)), "PAGE_SIZE_INVALID"),
        (stub.ListFlows(pb.ListFlowsRequest(page_size=-1)), "PAGE_SIZE_INVALID"),
        (stub.ListFlows(pb.ListFlowsRequest(page_token="x")), "PAGE_TOKEN_INVALID"),
        (stub.ListFlows(pb.ListFlowsRequest(page_token="WzFd")), "PAGE_TOKEN_INVALID"),
        (stub.ListFlows(pb.ListFlowsRequest(key="a\0b")), "KEY_INVALID"),
        (stub.ListFlows(pb.ListFlowsRequest(states=[pb.FLOW_STATE_UNSPECIFIED])), "STATE_UNKNOWN"),
        (stub.ListFlows(pb.ListFlowsRequest(states=[99])), "STATE_UNKNOWN"),  # type: ignore[list-item]
        (stub.GetFlow(pb.GetFlowRequest(key="x" * 501)), "KEY_INVALID"),
        (stub.DeleteChoreography(pb.DeleteChoreographyRequest(name="a\0b")), "NAME_INVALID"),
    ):
        assert await refusal(call) == ("INVALID_ARGUMENT", reason)
    assert await refusal(stub.GetFlow(pb.GetFlowRequest(key="x"))) == ("NOT_FOUND", "FLOW_UNKNOWN")


async def test_how_many_flows_are_where_is_listed_and_told_to_prometheus(monitor: Monitor, database: Database) -> None:
    await monitor.apply()
    key = new_key()
    await monitor.publish(key, "OrderPlaced", began=datetime.now(UTC) - LATE)
    await monitor.until(key, pb.FLOW_STATE_LATE)
    (info,) = (await monitor.stub.ListChoreographies(pb.ListChoreographiesRequest(name=monitor.name))).choreographies
    assert info.flows.late >= 1
    assert list(info.unread_topics) == []

    definitions, metrics = Definitions(database), FlowMetrics(registry := CollectorRegistry())
    await definitions.reload()
    reading = FlowReading(monitor.runtime.events, definitions, asyncio.Event())
    await tell(database, definitions, reading, metrics, timedelta(0))
    labels = {"namespace": "shop", "choreography": monitor.name}
    assert registry.get_sample_value("process_stuck", labels | {"kind": "late"}) == info.flows.late
    assert registry.get_sample_value("process_stuck", labels | {"kind": "contradictory"}) is not None
    assert registry.get_sample_value("flows_running", labels) == info.flows.running
    assert registry.get_sample_value("flows_unread_topics", labels) == 0


async def test_ended_flows_are_forgotten_and_others_are_not(monitor: Monitor, database: Database) -> None:
    await monitor.apply()
    old, open_, new = new_key(), new_key(), new_key()
    long_ago = datetime.now(UTC) - timedelta(days=40)
    await monitor.publish(old, "OrderPlaced", "OrderRejected", began=long_ago)
    await monitor.publish(open_, "OrderPlaced", began=long_ago)
    await monitor.publish(new, "OrderPlaced", "OrderRejected")
    for key in (old, new):
        await monitor.until(key, pb.FLOW_STATE_ENDED_UNDONE)
    await monitor.until(open_, pb.FLOW_STATE_LATE)
    task = asyncio.create_task(expire(database, timedelta(days=30)))

    async def forgotten() -> bool:
        return not (await monitor.list(key=old)).flows

    await eventually(forgotten, what="the old flow is forgotten")
    task.cancel()
    assert await database.pool.fetchval("SELECT count(*) FROM flow_event WHERE key = $1", old) == 0
    for key in (open_, new):
        assert (await monitor.list(key=key)).flows


async def test_a_topic_that_nobody_has_made_is_told(monitor: Monitor, database_url: str) -> None:
    """A monitor without a broker: everything is unread, and it still answers."""
    settings = Settings(database_url=SecretStr(database_url))
    async with running(settings, partial(assemble, settings)) as runtime:
        stub: Any = MonitorServiceStub(runtime.channel(runtime.address))
        request = pb.ApplyChoreographyRequest(manifest=Manifest(text=ORDER), descriptors=monitor.contracts)
        answer = await stub.ApplyChoreography(request)
        assert answer.accepted
        assert len(answer.choreography.unread_topics) == 4
        assert not (await stub.ListFlows(pb.ListFlowsRequest())).flows


async def test_replicas_share_the_work_and_another_goes_on_when_one_ends(
    monitor: Monitor, database: Database, nats: Any
) -> None:
    """The second replica knows what the first was told, and reads on with what the first had."""
    url = str(monitor.runtime.settings.database_url.get_secret_value())  # type: ignore[union-attr]
    settings = Settings(database_url=SecretStr(url), broker=SecretStr(nats.url), grace=timedelta(0))
    await monitor.apply()
    async with running(settings, partial(assemble, settings)) as second:
        stub: Any = MonitorServiceStub(second.channel(second.address))
        keys = [new_key() for _ in range(8)]
        for key in keys:
            await monitor.publish(key, "OrderPlaced", "OrderRejected")
        for key in keys:
            await monitor.until(key, pb.FLOW_STATE_ENDED_UNDONE)
        answer = await stub.GetFlow(pb.GetFlowRequest(namespace="shop", choreography=monitor.name, key=keys[0]))
        assert answer.flow.state == pb.FLOW_STATE_ENDED_UNDONE
    keys = [new_key() for _ in range(8)]
    for key in keys:
        await monitor.publish(key, "OrderPlaced", "OrderRejected")
    for key in keys:
        await monitor.until(key, pb.FLOW_STATE_ENDED_UNDONE)
    assert await database.pool.fetchval("SELECT count(*) FROM flow_changed") == 0
