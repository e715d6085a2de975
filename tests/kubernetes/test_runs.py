"""SagaRuns end to end: a real API server, the operator with its Role, the real orchestrator and the shop's services."""

import json
from datetime import timedelta

import pytest
from amends_testkit.kubernetes import KubectlError
from amends_testkit.waiting import eventually

from amends.saga.v1 import run_pb2
from shop.payments.v1 import payments_pb2


async def test_every_resource_of_the_example_becomes_ready_and_the_overview_shows_them(served) -> None:
    said = await served.kubectl("get", "amends")
    for part in ("saga.amends.dev/fulfil-order", "participant.amends.dev/payments", "retrypolicy.amends.dev/charge"):
        (row,) = [line for line in said.splitlines() if line.startswith(f"{part} ")]
        assert row.split()[1:3] == ["True", "Accepted"]


async def test_a_run_completes_and_waiting_for_it_returns(served) -> None:
    await served.apply(served.run("completed", "good"))
    await served.kubectl("wait", "--for=condition=Ready", "--timeout=30s", "sagarun/good")
    status = (await served.get("sagarun", "good"))["status"]
    assert (status["phase"], status["progress"]) == ("Completed", "3/3")
    assert [step["state"] for step in status["steps"]] == ["Done", "Done", "Done"]
    assert status["timeline"][0].split("  ")[1:] == ["1", "STARTED"]
    (run,) = [run for run in await served.platform.runs("shop") if run.run_id == status["runId"]]
    assert run.state == run_pb2.RUN_STATE_COMPLETED


async def test_a_declined_card_is_compensated_and_everybody_can_read_why(served) -> None:
    await served.apply(served.run("declined", "declined"))
    await served.kubectl("wait", "--for=condition=Ended", "--timeout=30s", "sagarun/declined")
    row = await served.kubectl("get", "sagarun", "declined")
    assert "Compensated" in row
    assert "the card was declined" in row
    told = await served.kubectl("describe", "sagarun", "declined")
    for part in ("charge action ANSWERED rejected", "reserve compensation ANSWERED ok", "the card was declined"):
        assert part in told
    assert "Warning" in told.split("Events:")[1]


async def test_a_parked_run_is_resolved_by_an_annotation_with_who_and_why(served) -> None:
    await served.apply(served.run("parked", "parked"))
    parked = await served.until("sagarun", "parked", "Parked")
    assert parked["metadata"]["finalizers"] == ["amends.dev/compensate"]
    assert parked["status"]["parked"]["resolutions"] == ["retry", "skip"]
    close = payments_pb2.CloseDisputeRequest(order_id="shop-parked")
    await served.platform.shop.payments.CloseDispute(close, timeout=20)
    await served.kubectl(
        "annotate", "sagarun", "parked", "amends.dev/retry=the dispute is closed", "amends.dev/actor=grace"
    )
    done = await served.until("sagarun", "parked", "Compensated")
    assert done["status"]["lastResolution"]["accepted"] is True
    records = await served.platform.timeline(done["status"]["runId"])
    assert [(event.actor, "the dispute is closed" in event.message) for event in records if event.actor] == [
        ("grace", True)
    ]

    async def released() -> bool:
        metadata = (await served.get("sagarun", "parked"))["metadata"]
        assert not [name for name in metadata.get("annotations", {}) if name.startswith("amends.dev/")], metadata
        return not metadata.get("finalizers")

    await eventually(released, what="the resource without finalizer and without the annotations of the decision")


async def test_a_decision_in_the_spec_is_carried_out_once_and_refused_when_the_run_has_moved_on(served) -> None:
    await served.apply(served.run("parked", "decided"))
    parked = await served.until("sagarun", "decided", "Parked")
    seq = parked["status"]["parked"]["seq"]
    decision = {"action": "Skip", "reason": "refunded by hand", "actor": "ada", "expectedSeq": seq - 1}
    await served.kubectl(
        "patch", "sagarun", "decided", "--type=merge", "-p", json.dumps({"spec": {"resolution": decision}})
    )

    async def settled() -> dict:
        found: dict = (await served.get("sagarun", "decided"))["status"].get("lastResolution", {})
        return found

    refused = await eventually(settled)
    assert (refused["accepted"], "STATE_CHANGED" in refused["message"]) == (False, True)
    decision["expectedSeq"] = seq
    await served.kubectl(
        "patch", "sagarun", "decided", "--type=merge", "-p", json.dumps({"spec": {"resolution": decision}})
    )
    done = await served.until("sagarun", "decided", "Compensated", timeout=timedelta(seconds=20))
    assert done["status"]["lastResolution"]["accepted"] is True
    assert done["status"]["skippedByPerson"] == 1


async def test_deleting_a_running_run_compensates_it_first(served) -> None:
    await served.apply(served.run("slow", "deleted"))
    running = await served.until("sagarun", "deleted", "Running")
    await served.kubectl("delete", "sagarun", "deleted", "--timeout=40s")
    run_id = running["status"]["runId"]
    (run,) = [run for run in await served.platform.runs("shop") if run.run_id == run_id]
    assert run.state == run_pb2.RUN_STATE_COMPENSATED
    assert "the SagaRun was deleted" in str([event.message for event in await served.platform.timeline(run_id)])


async def test_a_deleted_run_that_cannot_be_undone_is_let_go_when_somebody_says_so(served) -> None:
    await served.apply(served.run("parked", "abandoned"))
    parked = await served.until("sagarun", "abandoned", "Parked")
    await served.kubectl("delete", "sagarun", "abandoned", "--wait=false")
    await served.condition("sagarun", "abandoned", "Accepted", "True")

    async def waits():
        conditions = (await served.get("sagarun", "abandoned"))["status"]["conditions"]
        return "Deleting" in [condition["reason"] for condition in conditions]

    await eventually(waits)
    await served.kubectl("patch", "sagarun", "abandoned", "--type=merge", "-p", '{"spec":{"onDeletion":"Abandon"}}')
    await eventually(lambda: served.gone("sagarun", "abandoned"))
    (run,) = [run for run in await served.platform.runs("shop") if run.run_id == parked["status"]["runId"]]
    assert run.state == run_pb2.RUN_STATE_PARKED
    assert await served.told("abandoned", "Abandoned") == 1


async def test_a_run_goes_when_its_time_after_the_end_has_passed(served) -> None:
    document = served.run("completed", "short-lived")
    document["spec"]["ttlAfterEnd"] = "1s"
    await served.apply(document)
    await eventually(lambda: served.gone("sagarun", "short-lived"), timeout=timedelta(seconds=20))
    keys = [run.state for run in await served.platform.runs("shop") if run.message]
    assert run_pb2.RUN_STATE_COMPLETED in keys  # the orchestrator keeps the journal for its own time


async def test_a_run_whose_input_does_not_fit_is_refused_and_never_starts(served) -> None:
    document = served.run("completed", "misfit")
    document["spec"]["input"]["orderld"] = "typo"
    before = len(await served.platform.runs("shop"))
    await served.apply(document)
    refused = await served.until("sagarun", "misfit", "Refused")
    assert "INPUT_INVALID" in refused["status"]["message"]
    assert len(await served.platform.runs("shop")) == before


async def test_a_run_of_a_saga_that_comes_later_waits_for_it(served) -> None:
    document = served.run("completed", "early")
    document["spec"]["saga"] = "later"
    await served.apply(document)
    waiting = await served.until("sagarun", "early", "Pending")
    assert "SagaUnknown" in str(waiting["status"]["conditions"])
    (saga,) = served.example("shop/saga.yaml")
    saga["metadata"]["name"] = "later"
    await served.apply(saga)
    await served.until("sagarun", "early", "Completed")


async def test_an_input_that_is_changed_after_the_start_is_refused_or_changes_nothing_and_says_so(served) -> None:
    document = served.run("parked", "changed")
    await served.apply(document)
    before = await served.until("sagarun", "changed", "Parked")
    document["spec"]["input"]["cardToken"] = "tok_visa"
    with pytest.raises(KubectlError, match="input cannot be changed any more"):
        await served.apply(document)
    # The API server does not see that a field has another name.
    document["spec"]["input"]["card_token"] = document["spec"]["input"].pop("cardToken")
    await served.apply(document)
    after = await served.until("sagarun", "changed", "Parked")
    assert after["status"]["runId"] == before["status"]["runId"]
    assert "InputChangeIgnored" in [condition["reason"] for condition in after["status"]["conditions"]]
