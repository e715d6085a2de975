"""Which run a SagaRun has: that of its key, and never a second one when the orchestrator has lost the first."""

import json
import uuid
from collections import Counter

import pytest
from amends_testkit.kubernetes import KubectlError
from amends_testkit.waiting import eventually

from amends.saga.v1 import run_pb2

from .conftest import Namespace


def keyed(namespace: Namespace, example: str, name: str) -> dict:
    document = namespace.run(example, name)
    document["spec"]["key"] = document["spec"]["input"]["orderId"]
    return document


async def of_key(namespace: Namespace, key: str) -> list[run_pb2.Run]:
    return [run for run in await namespace.platform.runs(namespace.name) if run.idempotency_key == key]


async def test_a_restored_object_finds_its_run_and_nothing_is_done_twice(served: Namespace) -> None:
    document = keyed(served, "completed", "restored")
    await served.apply(document)
    first = await served.until("sagarun", "restored", "Completed")
    for how in ("replaced", "restored from a backup"):
        if how == "replaced":
            await served.kubectl("replace", "--force", "-f", "-", stdin=json.dumps(document))
        else:
            await served.kubectl("delete", "sagarun", "restored", "--timeout=20s")
            await served.apply(document)
        again = await served.until("sagarun", "restored", "Completed")
        assert again["metadata"]["uid"] != first["metadata"]["uid"], how
        assert again["status"]["runId"] == first["status"]["runId"], how
    assert len(await of_key(served, document["spec"]["key"])) == 1


async def test_a_key_cannot_be_changed_added_or_taken_away(served: Namespace) -> None:
    await served.apply(keyed(served, "completed", "fixed"), served.run("completed", "without"))
    for name, key in (("fixed", "another"), ("fixed", None), ("without", "another")):
        with pytest.raises(KubectlError, match=r"make another SagaRun"):
            await served.kubectl("patch", "sagarun", name, "--type=merge", "-p", json.dumps({"spec": {"key": key}}))
    await served.until("sagarun", "without", "Completed")


async def test_a_key_of_another_input_is_refused_and_its_run_survives_the_refused_object(served: Namespace) -> None:
    owner = keyed(served, "parked", "owner")
    await served.apply(owner)
    parked = await served.until("sagarun", "owner", "Parked")
    other = keyed(served, "parked", "pretender")
    other["spec"]["key"] = owner["spec"]["key"]
    await served.apply(other)
    refused = await served.until("sagarun", "pretender", "Refused")
    assert "KEY_REUSED" in refused["status"]["message"]
    await served.kubectl("delete", "sagarun", "pretender", "--timeout=20s")
    (run,) = await of_key(served, owner["spec"]["key"])
    assert (run.run_id, run.state) == (parked["status"]["runId"], run_pb2.RUN_STATE_PARKED)


async def test_a_run_that_another_object_shows_is_left_alone_when_one_of_them_is_deleted(served: Namespace) -> None:
    first = keyed(served, "parked", "moved")
    second = json.loads(json.dumps(first))
    second["metadata"]["name"] = "moved-here"
    await served.apply(first, second)
    run_ids = Counter(
        [(await served.until("sagarun", name, "Parked"))["status"]["runId"] for name in ("moved", "moved-here")]
    )
    assert len(run_ids) == 1
    await served.kubectl("delete", "sagarun", "moved", "--timeout=20s")
    (run,) = await of_key(served, first["spec"]["key"])
    assert run.state == run_pb2.RUN_STATE_PARKED
    assert (await served.get("sagarun", "moved-here"))["status"]["phase"] == "Parked"


async def test_a_run_that_the_orchestrator_lost_is_shown_as_lost_and_never_started_again(faulty: Namespace) -> None:
    """As after the restore of an older database: the status names a run that is not there."""
    await faulty.start()
    document = faulty.run("parked", "lost")
    await faulty.apply(document)
    parked = await faulty.until("sagarun", "lost", "Parked")
    before = Counter(run.run_id for run in await faulty.platform.runs(faulty.name))
    await faulty.stop()
    status = json.dumps({"status": {"runId": str(uuid.uuid4()), "parked": None, "phase": "Running"}})
    await faulty.kubectl("patch", "sagarun", "lost", "--type=merge", "--subresource=status", "-p", status)
    operator = await faulty.start()
    lost = await faulty.until("sagarun", "lost", "Unknown")
    stalled = await faulty.condition("sagarun", "lost", "Stalled", "True")
    assert stalled["reason"] == "RunUnknown"
    for value in ("now", "and again"):
        await faulty.kubectl("annotate", "--overwrite", "sagarun/lost", f"amends.dev/reconcile-at={value}")

        async def looked(value: str = value) -> bool:
            return bool((await faulty.get("sagarun", "lost"))["status"].get("lastHandledReconcileAt") == value)

        await eventually(looked)
    assert Counter(run.run_id for run in await faulty.platform.runs(faulty.name)) == before
    assert (await faulty.get("sagarun", "lost"))["status"]["runId"] == lost["status"]["runId"]
    assert parked["status"]["runId"] in before
    assert operator.alive


async def test_a_decision_about_a_parked_record_that_is_no_more_is_refused(faulty: Namespace) -> None:
    """The status shows an older record than the run has parked at since."""
    await faulty.start()
    await faulty.apply(faulty.run("parked", "moved-on"))
    body = await faulty.until("sagarun", "moved-on", "Parked")
    await faulty.stop()
    shown = json.dumps({"status": {"parked": {"seq": body["status"]["parked"]["seq"] - 1}}})
    await faulty.kubectl("patch", "sagarun", "moved-on", "--type=merge", "--subresource=status", "-p", shown)
    await faulty.kubectl("annotate", "sagarun", "moved-on", "amends.dev/skip=by hand", "amends.dev/actor=ada")
    await faulty.start()

    async def answered() -> dict:
        found: dict = (await faulty.get("sagarun", "moved-on"))["status"].get("lastResolution", {})
        return found

    answer = await eventually(answered)
    assert (answer["accepted"], "STATE_CHANGED" in answer["message"]) == (False, True)
    assert (await faulty.until("sagarun", "moved-on", "Parked"))["status"]["phase"] == "Parked"
