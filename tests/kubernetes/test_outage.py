"""Five minutes without an API server: runs go on, the operator waits, and statuses catch up."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from amends_testkit.kubernetes import Kubernetes, assets
from amends_testkit.waiting import eventually

from amends.saga.v1 import run_pb2
from amends.saga.v1 import run_service_pb2 as runs
from shop.payments.v1 import payments_pb2

from .conftest import ROOT, Namespace, Platform, a_namespace

FIVE_MINUTES = timedelta(minutes=5).total_seconds()
HURRIED = str(Path(__file__).with_name("hurried.py"))


@pytest.fixture
async def namespace(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Namespace]:
    """A namespace with the example, on an API server of its own."""
    programs = assets()
    assert programs is not None
    folder = tmp_path_factory.mktemp("outage")
    async with await Kubernetes.start(folder / "kubernetes", programs) as server:
        await server.define(ROOT / "charts/amends-crds/templates")
        async with a_namespace(server, platform, folder, "outage") as made:
            yield made


async def test_runs_go_on_for_five_minutes_without_an_api_server_and_statuses_catch_up(namespace: Namespace) -> None:
    operator = await namespace.start(program=(HURRIED,))
    await namespace.install()
    await namespace.apply(namespace.run("slow", "goes-on"), namespace.run("parked", "decided-elsewhere"))
    slow = (await namespace.until("sagarun", "goes-on", "Running"))["status"]["runId"]
    parked = await namespace.until("sagarun", "decided-elsewhere", "Parked")
    assert await namespace.probe(operator, "/healthz") == 200
    await namespace.cluster.stop_server()

    shop = namespace.platform.shop
    await shop.payments.CloseDispute(payments_pb2.CloseDisputeRequest(order_id="outage-decided-elsewhere"), timeout=20)
    decision = runs.ResolveRunRequest(
        run_id=parked["status"]["runId"],
        resolution=runs.RESOLUTION_RETRY,
        expected_seq=parked["status"]["parked"]["seq"],
        reason="closed",
        actor="grace",
    )
    await shop.runs.ResolveRun(decision, timeout=20)

    async def both_ended() -> bool:
        states = {run.run_id: run.state for run in await namespace.platform.runs(namespace.name)}
        undone = states[parked["status"]["runId"]] == run_pb2.RUN_STATE_COMPENSATED
        return undone and states[slow] == run_pb2.RUN_STATE_COMPLETED

    async def five_minutes() -> bool:
        return await namespace.metric(operator, "watch_silence_seconds") > FIVE_MINUTES

    await eventually(both_ended, timeout=timedelta(seconds=30))
    await eventually(five_minutes, timeout=timedelta(seconds=90))
    assert operator.alive
    assert await namespace.probe(operator, "/healthz") == 503

    await namespace.cluster.start_server()
    await namespace.until("sagarun", "goes-on", "Completed")
    await namespace.until("sagarun", "decided-elsewhere", "Compensated")
    await namespace.apply(namespace.run("completed", "afterwards"))
    await namespace.until("sagarun", "afterwards", "Completed")
    assert operator.alive

    async def well() -> bool:
        return await namespace.probe(operator, "/healthz") == 200

    await eventually(well)
    assert len(await namespace.platform.runs(namespace.name)) == 3
