"""What people ask of the operator beside applying: look again, leave alone, take a grant back, decide too late."""

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

import pytest
from amends_testkit.waiting import eventually

from amends.saga.v1 import definition_service_pb2 as definitions
from amends.saga.v1 import run_pb2
from shop.shipping.v1 import shipping_pb2

from .conftest import Namespace

DEFINITIONS = ("saga/fulfil-order", "participant/payments", "retrypolicy/charge")


async def handled(namespace: Namespace, name: str, value: str) -> bool:
    kind, _, name = name.partition("/")
    status = (await namespace.get(kind, name)).get("status", {})
    return bool(status.get("lastHandledReconcileAt") == value)


async def ask(namespace: Namespace, name: str, value: str) -> None:
    await namespace.kubectl("annotate", "--overwrite", name, f"amends.dev/reconcile-at={value}")
    await eventually(partial(handled, namespace, name, value))


async def test_each_definition_is_handed_over_anew_when_somebody_asks(faulty: Namespace) -> None:
    """The orchestrator has lost them all, and the operator would look only after an hour."""
    await faulty.start(resync="1h", relist="1h")
    await ask(faulty, "saga/fulfil-order", "before")
    stub = faulty.platform.shop.definitions
    where = {"namespace": faulty.name}
    await stub.DeleteSaga(definitions.DeleteSagaRequest(**where, name="fulfil-order"), timeout=10)
    await stub.DeleteParticipant(definitions.DeleteParticipantRequest(**where, name="payments"), timeout=10)
    await stub.DeleteRetryPolicy(definitions.DeleteRetryPolicyRequest(**where, name="charge"), timeout=10)
    for name in reversed(DEFINITIONS):
        await ask(faulty, name, "2026-01-01T10:00:00Z")
    sagas = await stub.ListSagas(definitions.ListSagasRequest(**where), timeout=10)
    participants = await stub.ListParticipants(definitions.ListParticipantsRequest(**where), timeout=10)
    policies = await stub.ListRetryPolicies(definitions.ListRetryPoliciesRequest(**where), timeout=10)
    assert "fulfil-order" in [info.name for info in sagas.sagas]
    assert "payments" in [info.name for info in participants.participants]
    assert "charge" in [info.name for info in policies.retry_policies]


async def test_a_wish_is_confirmed_so_that_kubectl_can_wait_for_it(served: Namespace) -> None:
    await served.kubectl("annotate", "saga/fulfil-order", "amends.dev/reconcile-at=today")
    await served.kubectl(
        "wait", "--for=jsonpath={.status.lastHandledReconcileAt}=today", "--timeout=20s", "saga/fulfil-order"
    )
    await served.apply(served.run("completed", "asked"))
    await served.until("sagarun", "asked", "Completed")
    await ask(served, "sagarun/asked", "after-the-end")


async def test_a_refused_run_is_tried_again_when_somebody_asks(served: Namespace) -> None:
    (saga,) = served.example("shop/saga.yaml")
    saga["metadata"]["name"] = "stricter"
    await served.apply(saga)
    await served.until("saga", "stricter", "Accepted")
    document = served.run("completed", "again")
    document["spec"]["saga"] = "stricter"
    document["spec"]["input"]["note"] = "leave it at the door"
    await served.apply(document)
    assert "INPUT_INVALID" in (await served.until("sagarun", "again", "Refused"))["status"]["message"]
    saga["spec"]["input"]["note"] = "string"
    await served.apply(saga)
    await served.until("saga", "stricter", "Accepted")
    await served.kubectl("annotate", "sagarun/again", "amends.dev/reconcile-at=now")
    await served.until("sagarun", "again", "Completed")


async def test_a_refused_run_is_tried_again_when_its_input_is_mended(served: Namespace) -> None:
    document = served.run("completed", "mended")
    document["spec"]["input"]["orderNumber"] = document["spec"]["input"].pop("orderId")
    await served.apply(document)
    await served.until("sagarun", "mended", "Refused")
    document["spec"]["input"]["orderId"] = document["spec"]["input"].pop("orderNumber")
    await served.apply(document)
    await served.until("sagarun", "mended", "Completed")


async def test_a_suspended_run_is_not_started_until_it_is_resumed(served: Namespace) -> None:
    document = served.run("completed", "asleep")
    document["spec"]["suspend"] = True
    await served.apply(document)
    resting = await served.until("sagarun", "asleep", "Suspended")
    assert "it is not started" in await served.kubectl("get", "sagarun", "asleep")
    key = f"sagarun/{resting['metadata']['uid']}"
    assert key not in [run.idempotency_key for run in await served.platform.runs(served.name)]
    await served.kubectl("patch", "sagarun", "asleep", "--type=merge", "-p", '{"spec": {"suspend": null}}')
    await served.until("sagarun", "asleep", "Completed")


async def test_a_run_that_is_suspended_on_its_way_goes_on_unseen_and_is_shown_again(served: Namespace) -> None:
    document = served.run("parked", "unseen")
    await served.apply(document)
    await served.until("sagarun", "unseen", "Parked")
    await served.kubectl("patch", "sagarun", "unseen", "--type=merge", "-p", '{"spec": {"suspend": true}}')
    ready = await served.condition("sagarun", "unseen", "Ready", "Unknown")
    assert (ready["reason"], "goes on" in ready["message"]) == ("Suspended", True)
    await served.kubectl("annotate", "sagarun", "unseen", "amends.dev/skip=by hand", "amends.dev/actor=ada")
    await served.kubectl("patch", "sagarun", "unseen", "--type=merge", "-p", '{"spec": {"suspend": false}}')
    shown = await served.until("sagarun", "unseen", "Compensated")
    assert shown["status"]["lastResolution"]["accepted"] is True


async def test_a_decision_that_comes_too_late_is_answered(served: Namespace) -> None:
    await served.apply(served.run("completed", "late"))
    await served.until("sagarun", "late", "Completed")
    await served.kubectl("annotate", "sagarun", "late", "amends.dev/retry=once more", "amends.dev/actor=ada")

    async def answered() -> dict:
        found: dict = (await served.get("sagarun", "late"))["status"].get("lastResolution", {})
        return found

    said = await eventually(answered)
    assert (said["accepted"], "COMPLETED" in said["message"]) == (False, True)

    async def carried_out() -> bool:
        annotations = (await served.get("sagarun", "late"))["metadata"].get("annotations", {})
        assert not [name for name in annotations if name.startswith("amends.dev/")], annotations
        told = await served.kubectl("get", "events", "--field-selector", "involvedObject.name=late")
        return "DecisionRefused" in told and "retry by ada: once more" in told

    await eventually(carried_out)


async def test_decisions_are_told_as_events_with_who_and_why(
    served: Namespace, silent_cards: Callable[[], Awaitable[None]]
) -> None:
    await served.apply(served.run("slow", "called-off"))
    await served.until("sagarun", "called-off", "Running")
    await served.kubectl(
        "annotate", "sagarun/called-off", "amends.dev/compensate=changed my mind", "amends.dev/actor=eve"
    )

    async def decided() -> bool:
        status = (await served.get("sagarun", "called-off"))["status"]
        return bool(status.get("lastResolution", {}).get("accepted"))

    await eventually(decided)
    await silent_cards()
    ended = await served.until("sagarun", "called-off", "Compensated")
    assert "eve: changed my mind" in ended["status"]["message"]
    told = await served.kubectl("describe", "sagarun", "called-off")
    assert "Decided" in told.split("Events:")[1]
    assert "compensate by eve: changed my mind" in told


async def test_a_grant_that_is_taken_back_stops_runs_in_flight_and_new_ones(
    served: Namespace, silent_cards: Callable[[], Awaitable[None]]
) -> None:
    """The saga is not ready at once, and no run reaches the service until it is granted again."""
    await served.apply(served.run("slow", "stopped"))
    run_id = (await served.until("sagarun", "stopped", "Running"))["status"]["runId"]
    await served.kubectl("patch", "participant", "shipping", "--type=merge", "-p", '{"spec": {"callers": ["other"]}}')
    assert (await served.condition("saga", "fulfil-order", "Ready", "False"))["reason"] == "NotGranted"
    await silent_cards()

    async def charged() -> bool:
        (run,) = [run for run in await served.platform.runs(served.name) if run.run_id == run_id]
        states = {step.name: step.state for step in run.steps}
        return states["charge"] == run_pb2.STEP_STATE_DONE

    await eventually(charged, timeout=timedelta(seconds=40))
    await served.apply(served.run("completed", "refused-meanwhile"))
    told = await served.condition("sagarun", "refused-meanwhile", "Ready", "False")
    shipments = shipping_pb2.GetShipmentRequest(order_id=f"{served.name}-stopped")
    with pytest.raises(Exception, match="NOT_FOUND"):
        await served.platform.shop.shipping.GetShipment(shipments, timeout=10)
    await served.kubectl(
        "patch", "participant", "shipping", "--type=merge", "-p", json.dumps({"spec": {"callers": [served.name]}})
    )
    await served.condition("saga", "fulfil-order", "Ready", "True")
    await served.until("sagarun", "stopped", "Completed")
    await served.until("sagarun", "refused-meanwhile", "Completed")
    assert told["reason"] == "SagaNotReady"
