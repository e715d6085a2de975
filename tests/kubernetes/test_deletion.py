"""The end of SagaRuns: what deletion waits for, how long, and the ways out."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from amends_testkit.waiting import eventually

from amends.saga.v1 import run_pb2

from .conftest import Namespace, Platform


async def state_of(namespace: Namespace, run_id: str) -> run_pb2.RunState.ValueType:
    (run,) = [run for run in await namespace.platform.runs(namespace.name) if run.run_id == run_id]
    return run.state


@pytest.fixture
async def slow_parcels(platform: Platform, served: Namespace) -> AsyncIterator[None]:
    """A parcel, which is the pivot, takes four seconds; afterwards as long as before."""
    platform.stack.child("shipping").kill()
    await platform.stack.start_one("shipping", {"AMENDS_HANDLING_TIME": "4s"})
    yield
    platform.stack.child("shipping").kill()
    await platform.stack.start_one("shipping")
    phase = ""
    for number in range(10):  # the orchestrator's connection comes back up to two seconds later
        if phase != "Completed":
            await served.apply(served.run("completed", f"parcels-again-{number}"))
            body = await served.until("sagarun", f"parcels-again-{number}", "Completed", "Compensated")
            phase = body["status"]["phase"]
    assert phase == "Completed"


@pytest.mark.usefixtures("slow_parcels")
async def test_a_run_past_its_pivot_is_completed_before_its_resource_goes_and_that_is_said_once(
    served: Namespace,
) -> None:
    await served.kubectl("patch", "retrypolicy", "default", "--type=merge", "-p", '{"spec": {"timeout": "20s"}}')
    await served.until("retrypolicy", "default", "Accepted")
    await served.apply(served.run("completed", "too-late"))

    async def at_the_pivot() -> str:
        status = (await served.get("sagarun", "too-late")).get("status", {})
        return status.get("runId", "") if any("ship INTENT" in line for line in status.get("timeline", [])) else ""

    run_id = await eventually(at_the_pivot)
    await served.kubectl("delete", "sagarun", "too-late", "--wait=false")
    await served.told("too-late", "CompensationRefused")
    await eventually(lambda: served.gone("sagarun", "too-late"), timeout=timedelta(seconds=30))
    assert await state_of(served, run_id) == run_pb2.RUN_STATE_COMPLETED
    assert await served.told("too-late", "CompensationRefused") == 1
    await served.kubectl("patch", "retrypolicy", "default", "--type=merge", "-p", '{"spec": {"timeout": "3s"}}')


async def test_a_run_whose_compensation_does_not_end_in_time_is_let_go_with_a_warning(faulty: Namespace) -> None:
    await faulty.start(deletion_patience="2s")
    await faulty.apply(faulty.run("parked", "stuck"))
    run_id = (await faulty.until("sagarun", "stuck", "Parked"))["status"]["runId"]
    await faulty.kubectl("delete", "sagarun", "stuck", "--timeout=30s")
    assert await state_of(faulty, run_id) == run_pb2.RUN_STATE_PARKED
    assert await faulty.told("stuck", "Abandoned") == 1


async def test_without_an_operator_the_finalizer_can_be_taken_off_and_the_next_one_counts_the_run(
    faulty: Namespace,
) -> None:
    """The last way out, as the examples' page has it."""
    await faulty.start()
    await faulty.apply(faulty.run("parked", "orphan"))
    run_id = (await faulty.until("sagarun", "orphan", "Parked"))["status"]["runId"]
    await faulty.stop()
    await faulty.kubectl("delete", "sagarun", "orphan", "--wait=false")
    await faulty.kubectl("patch", "sagarun", "orphan", "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    assert await faulty.gone("sagarun", "orphan")
    operator = await faulty.start(relist="1s")
    await eventually(lambda: run_id in operator.log.read_text())
    assert await faulty.metric(operator, "orphaned_runs") >= 1  # other tests leave some, too
    assert await state_of(faulty, run_id) == run_pb2.RUN_STATE_PARKED


async def test_runs_are_kept_as_long_as_the_operator_is_told_unless_they_say_it_themselves(faulty: Namespace) -> None:
    await faulty.start(run_ttl="1s")
    keeps = faulty.run("completed", "kept-longer")
    keeps["spec"]["ttlAfterEnd"] = "1h"
    await faulty.apply(keeps, faulty.run("completed", "kept-shortly"))
    await faulty.until("sagarun", "kept-longer", "Completed")
    await eventually(lambda: faulty.gone("sagarun", "kept-shortly"), timeout=timedelta(seconds=30))
    assert not await faulty.gone("sagarun", "kept-longer")


async def test_a_run_that_was_deleted_and_made_again_under_its_name_is_another_run(served: Namespace) -> None:
    first = served.run("completed", "twice")
    await served.apply(first)
    before = (await served.until("sagarun", "twice", "Completed"))["status"]["runId"]
    await served.kubectl("delete", "sagarun", "twice", "--timeout=20s")
    first["spec"]["input"]["orderId"] += "-again"
    await served.apply(first)
    after = (await served.until("sagarun", "twice", "Completed"))["status"]["runId"]
    assert after != before
