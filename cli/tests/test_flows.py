"""`amends flows`, and Choreographies in `amends check` and `amends apply`: what people read, and how it ends."""

import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from amends_contracts import descriptor_set
from amends_testkit.answers import ScriptedAnswer
from amends_testkit.participant import FakeParticipant

from amends.monitor.v1 import monitor_service_pb2 as api
from amends.saga.v1 import definition_service_pb2 as saga

EXAMPLE = Path(__file__).parents[2] / "examples/place-order/choreography.yaml"
PLACED, RESERVED = "shop.orders.events.v1.OrderPlaced", "shop.inventory.events.v1.StockReserved"
TAKEN, FAILED = "shop.payments.events.v1.PaymentTaken", "shop.payments.events.v1.PaymentFailed"


@pytest.fixture
async def monitor(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeParticipant]:
    async with await FakeParticipant.start(descriptor_set(), ["amends.monitor.v1.MonitorService"]) as server:
        monkeypatch.setenv("AMENDS_MONITOR_ADDRESS", server.target)
        yield server


def flow(
    key: str, state: api.FlowState.ValueType, *, overdue: timedelta | None = None, events: bool = False
) -> api.Flow:
    """A flow whose first event was a minute ago; one that has not ended waits for payments."""
    made = api.Flow(namespace="shop", choreography="place-order", key=key, state=state)
    now = datetime.now(UTC)
    began = now - timedelta(minutes=1)
    made.began_at.FromDatetime(began)
    made.last_at.FromDatetime(began)
    if overdue is not None:
        missing = made.missing.add(events=[TAKEN, FAILED], by="payments", upon=RESERVED, late=overdue > timedelta())
        missing.due_at.FromDatetime(now - overdue)
    for number, (event, by) in enumerate(((PLACED, "orders"), (RESERVED, "inventory")) if events else ()):
        seen = made.events.add(event=event, by=by, source=f"/shop/{by}", event_id=f"id-{number}")
        seen.occurred_at.FromDatetime(began + timedelta(milliseconds=12 * number))
    return made


async def test_late_flows_say_what_is_missing_by_whom_and_since_when(run, monitor) -> None:
    found = [
        flow("o-1", api.FLOW_STATE_LATE, overdue=timedelta(minutes=10)),
        flow("o-2", api.FLOW_STATE_RUNNING, overdue=timedelta(hours=-3)),
        flow("o-3", api.FLOW_STATE_ENDED_WELL),
    ]
    monitor.script("ListFlows", ScriptedAnswer.ok(api.ListFlowsResponse(flows=found)))
    result = await run("flows", "-n", "shop", "--state", "late", "--state", "well")
    assert result.code == 0, result.err
    header, *rows = [line.split(maxsplit=5) for line in result.out.splitlines()]
    assert header == ["KEY", "NAMESPACE", "CHOREOGRAPHY", "STATE", "AGE", "MISSING"]
    assert rows[0][:4] == ["o-1", "shop", "place-order", "LATE"]
    assert rows[0][5] == "PaymentTaken or PaymentFailed by payments, overdue for 10m"
    assert rows[1][5].startswith("PaymentTaken or PaymentFailed by payments, due in ")
    assert rows[2][3] == "ENDED_WELL"
    (call,) = monitor.calls("ListFlows")
    assert list(call.request.states) == [api.FLOW_STATE_LATE, api.FLOW_STATE_ENDED_WELL]
    assert call.request.namespace == "shop"


async def test_one_key_shows_its_events_in_order_and_what_is_missing(run, monitor) -> None:
    late = flow("o-1", api.FLOW_STATE_LATE, overdue=timedelta(minutes=10), events=True)
    monitor.script("ListFlows", ScriptedAnswer.ok(api.ListFlowsResponse(flows=[late])))
    monitor.script("GetFlow", ScriptedAnswer.ok(api.GetFlowResponse(flow=late)))
    result = await run("flows", "o-1")
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[:2] == ["shop/place-order o-1", "LATE"]
    assert [line.split() for line in lines[2:4]] == [
        ["+0.000s", "OrderPlaced", "orders"],
        ["+0.012s", "StockReserved", "inventory"],
    ]
    said = "missing: PaymentTaken or PaymentFailed by payments upon StockReserved, overdue for 10m"
    assert lines[4].endswith(said)
    wide = await run("flows", "o-1", "-o", "wide")
    assert "/shop/orders id-0" in wide.out
    data = json.loads((await run("flows", "o-1", "-o", "json")).out)
    assert [event["event"] for event in data[0]["events"]] == [PLACED, RESERVED]
    assert (await run("flows", "o-1", "-o", "name")).out == "o-1\n"


async def test_pages_are_followed_up_to_the_limit(run, monitor) -> None:
    pages = [
        api.ListFlowsResponse(flows=[flow("o-1", api.FLOW_STATE_LATE)], next_page_token="next"),
        api.ListFlowsResponse(flows=[flow("o-2", api.FLOW_STATE_LATE)], next_page_token="more"),
    ]
    monitor.script("ListFlows", *map(ScriptedAnswer.ok, pages))
    result = await run("flows", "--limit", "2", "-o", "name")
    assert result.out.split() == ["o-1", "o-2"]
    assert [(call.request.page_size, call.request.page_token) for call in monitor.calls("ListFlows")] == [
        (2, ""),
        (1, "next"),
    ]


async def test_a_key_that_nobody_knows_is_a_failure(run, monitor) -> None:
    monitor.script("ListFlows", ScriptedAnswer.ok(api.ListFlowsResponse()))
    result = await run("flows", "o-9")
    assert (result.code, result.err.splitlines()[0]) == (1, "error: there is no flow of o-9")
    assert (await run("flows")).err == "no flows\n"


async def test_where_the_monitor_is_must_be_known(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AMENDS_MONITOR_ADDRESS", raising=False)
    result = await run("flows")
    assert result.code == 2
    assert "where is the monitor?" in result.err
    away = await run("flows", "--address", "127.0.0.1:1")
    assert away.code == 3
    assert "no monitor answers at 127.0.0.1:1" in away.err


async def test_the_monitor_of_make_up_is_found(run, monitor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AMENDS_MONITOR_ADDRESS")
    (tmp_path / ".amends").mkdir()
    state = {"processes": {"monitor": {"address": monitor.target, "metrics": "", "database": "x"}}}
    (tmp_path / ".amends" / "state.json").write_text(json.dumps(state))
    monitor.script("ListFlows", ScriptedAnswer.ok(api.ListFlowsResponse()))
    result = await run("flows")
    assert (result.code, result.err.splitlines()[-1]) == (0, "no flows")


async def test_a_choreography_is_applied_to_the_monitor_and_needs_no_orchestrator(run, monitor, tmp_path: Path) -> None:
    (tmp_path / "order.yaml").write_text(EXAMPLE.read_text())
    (tmp_path / "set.binpb").write_bytes(descriptor_set().SerializeToString())
    accepted = api.ApplyChoreographyResponse(accepted=True)
    accepted.choreography.digest = "abcdef0123456789"
    refused = api.ApplyChoreographyResponse(
        findings=[saga.Finding(code="AM101", severity=saga.SEVERITY_ERROR, message="No end.", source="order.yaml")]
    )
    monitor.script("ApplyChoreography", ScriptedAnswer.ok(accepted), ScriptedAnswer.ok(refused))
    result = await run("apply", "--descriptors", "set.binpb", "order.yaml")
    assert result.code == 0, result.err
    assert result.out.splitlines()[1].split() == ["choreography", "shop/place-order", "applied", "abcdef012345"]
    assert b"OrderPlaced" in monitor.calls("ApplyChoreography")[0].request.descriptors
    result = await run("apply", "order.yaml")
    assert result.code == 1
    assert "AM101" in result.out


async def test_nothing_is_applied_when_nobody_knows_where_the_monitor_is(
    run, orchestrator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AMENDS_MONITOR_ADDRESS", raising=False)
    policy = "apiVersion: amends.dev/v1alpha1\nkind: RetryPolicy\nmetadata: {name: patient}\nspec: {}\n"
    (tmp_path / "all.yaml").write_text(f"{policy}---\n{EXAMPLE.read_text()}")
    result = await run("apply", "all.yaml", "--address", orchestrator.target)
    assert (result.code, "where is the monitor?" in result.err) == (2, True)
    assert orchestrator.received == []


async def test_a_choreography_is_checked_without_a_server(run, tmp_path: Path) -> None:
    (tmp_path / "set.binpb").write_bytes(descriptor_set().SerializeToString())
    (tmp_path / "good.yaml").write_text(EXAMPLE.read_text())
    (tmp_path / "bad.yaml").write_text(EXAMPLE.read_text().replace("      ends: Well\n", ""))
    said = "shop/place-order: every path ends, and what ends undone is undone; 12 events can have come in 44 ways"
    assert (await run("check", "--descriptors", "set.binpb", "good.yaml")).out == f"{said}\nok: 1 file\n"
    result = await run("check", "--descriptors", "set.binpb", "bad.yaml")
    assert result.code == 1
    assert re.match(
        r"bad\.yaml:\d+:14: error AM094: Nobody consumes `shop\.orders\.events\.v1\.OrderConfirmed`", result.out
    )


async def test_choreographies_are_listed_shown_and_deleted(run, monitor) -> None:
    info = api.ChoreographyInfo(namespace="shop", name="place-order", digest="abcdef0123456789", unread_topics=["a.v1"])
    info.flows.late, info.flows.ended_well = 2, 40
    monitor.script(
        "ListChoreographies", *[ScriptedAnswer.ok(api.ListChoreographiesResponse(choreographies=[info]))] * 4
    )
    listed = await run("list", "choreographies")
    header, row = (line.split() for line in listed.out.splitlines())
    assert header[:7] == ["NAMESPACE", "NAME", "RUNNING", "LATE", "WELL", "UNDONE", "CONTRADICTORY"]
    assert row == ["shop", "place-order", "0", "2", "40", "0", "0", "a.v1"]
    assert (await run("list", "choreographies", "-o", "name")).out == "choreography/place-order\n"
    assert "abcdef012345" in (await run("get", "choreography/place-order", "-n", "shop")).out
    monitor.script(
        "DeleteChoreography",
        ScriptedAnswer.ok(api.DeleteChoreographyResponse(deleted=True)),
        ScriptedAnswer.ok(api.DeleteChoreographyResponse()),
    )
    deleted = await run("delete", "choreography/place-order", "-n", "shop")
    assert (deleted.code, deleted.err) == (0, "choreography shop/place-order deleted\n")
    absent = await run("delete", "choreography/place-order")
    assert absent.code == 1
    assert "There is one in the namespace shop: add `-n shop`." in absent.err
