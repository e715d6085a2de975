"""Sagas and Participants: what is refused and why, what is in force when, and who is affected."""

import base64

import yaml
from amends_contracts import descriptor_set
from amends_testkit.kubernetes import KubectlError
from amends_testkit.participant import FakeParticipant
from amends_testkit.waiting import eventually

from amends.saga.v1 import definition_service_pb2 as definitions
from amends.saga.v1 import run_pb2

HOSTILE = [
    "unix:/run/docker.sock",
    "unix-abstract:x",
    "vsock:2:50051",
    "ipv4:10.0.0.1:443",
    "ipv6:[fd00::1]:443",
    "xds:///payments",
    "google-c2p:///payments",
    "dns://8.8.8.8/payments.shop.svc:443",
    "dns:///169.254.169.254:80",
    "dns:///2852039166:80",
    "dns:///0xa9fea9fe:80",
    "dns:///[::ffff:169.254.169.254]:80",
    "dns:///user@payments.shop.svc:443",
    "dns:///payments.shop.svc.:443",
    "dns:///evil.example.com:443",
    "dns:///metadata.google.internal:80",
    "dns:///kubernetes.default.svc:443",
    "dns:///pаyments.shop.svc:443",
    "169.254.169.254:80",
    "0x7f000001:80",
]


def saga_of(namespace, name: str):
    (saga,) = namespace.example("shop/saga.yaml")
    saga["metadata"]["name"] = name
    return saga


async def in_force(namespace, name: str):
    request = definitions.ListSagasRequest(namespace=namespace.name, name=name)
    found = await namespace.platform.shop.definitions.ListSagas(request, timeout=10)
    return found.sagas[0] if found.sagas else None


async def test_findings_have_code_and_line_in_the_condition_and_the_version_before_stays_in_force(served) -> None:
    saga = saga_of(served, "edited")
    await served.apply(saga)
    good = await served.until("saga", "edited", "Accepted")
    saga["spec"]["steps"][1]["request"] = "ChargeRequest{order_id: input.oder_id}"
    await served.apply(saga)
    refused = await served.until("saga", "edited", "Refused")
    ready = next(found for found in refused["status"]["conditions"] if found["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "CheckFailed")
    assert "AM061" in ready["message"] or "AM062" in ready["message"]
    assert " line " in ready["message"]
    assert "oder_id" in ready["message"]
    assert refused["status"]["digest"] == good["status"]["digest"]
    info = await in_force(served, "edited")
    assert info is not None
    assert info.digest == good["status"]["digest"]
    assert await served.told("edited", "CheckFailed") == 1
    saga["spec"]["steps"][1]["request"] = "ChargeRequest{order_id: input.order_id, amount: input.total}"
    await served.apply(saga)
    assert (await served.until("saga", "edited", "Accepted"))["status"]["digest"] != good["status"]["digest"]


async def test_a_saga_whose_method_does_not_exist_is_refused_in_status_and_never_runs(served) -> None:
    saga = saga_of(served, "nowhere")
    saga["spec"]["steps"][0]["call"] = "shop.inventory.v1.InventoryService/Borrow"
    await served.apply(saga)
    refused = await served.until("saga", "nowhere", "Refused")
    reasons = {found["type"]: found["reason"] for found in refused["status"]["conditions"]}
    assert reasons["ResolvedRefs"] == "MethodNotFound"
    assert await in_force(served, "nowhere") is None
    run = served.run("completed", "never")
    run["spec"]["saga"] = "nowhere"
    await served.apply(run)
    await served.until("sagarun", "never", "Pending")
    uid = (await served.get("sagarun", "never"))["metadata"]["uid"]
    assert f"sagarun/{uid}" not in [run.idempotency_key for run in await served.platform.runs(served.name)]


async def test_runs_in_flight_go_on_when_their_saga_is_edited_and_deleted(served, silent_cards) -> None:
    saga = saga_of(served, "moving")
    await served.apply(saga)
    first = await served.until("saga", "moving", "Accepted")
    document = served.run("slow", "pinned")
    document["spec"]["saga"] = "moving"
    await served.apply(document)
    run = await served.until("sagarun", "pinned", "Running")
    saga["spec"]["deadline"] = "90s"
    saga["spec"]["steps"][0]["request"] = "ReserveRequest{order_id: input.order_id + '', lines: input.lines}"
    await served.apply(saga)

    async def two_versions():
        status = (await served.get("saga", "moving"))["status"]
        uses = {use["digest"]: use.get("running", 0) for use in status.get("digests", [])}
        return status["digest"] != first["status"]["digest"] and uses.get(first["status"]["digest"]) == 1

    await eventually(two_versions)
    await served.kubectl("delete", "saga", "moving")

    async def taken_out():
        return await in_force(served, "moving") is None

    await eventually(taken_out)
    await silent_cards()
    ended = await served.until("sagarun", "pinned", "Completed")
    assert ended["status"]["digest"] == first["status"]["digest"] == run["status"]["digest"]


async def test_every_hostile_address_is_refused_by_the_schema_or_in_the_status(served) -> None:
    shown: list[tuple[int, str]] = []
    refusals: list[str] = []
    for number, target in enumerate(HOSTILE):
        participant = {
            "apiVersion": "amends.dev/v1alpha1",
            "kind": "Participant",
            "metadata": {"name": f"hostile-{number}"},
            "spec": {"service": "evil.v1.Service", "target": target, "methods": ["*"], "callers": [served.name]},
        }
        try:
            await served.apply(participant)
            shown.append((number, target))
        except KubectlError as error:
            refusals.append(error.said)
    assert all("spec.target" in said for said in refusals)
    for number, target in shown:
        refused = await served.until("participant", f"hostile-{number}", "Refused")
        assert "TargetRefused" in str(refused["status"]["conditions"]), target
    assert [target for _, target in shown] == ["dns:///evil.example.com:443", "dns:///metadata.google.internal:80"]
    request = definitions.ListParticipantsRequest(namespace=served.name)
    known = await served.platform.shop.definitions.ListParticipants(request, timeout=10)
    assert not [info for info in known.participants if info.service == "evil.v1.Service"]


async def test_a_participant_shows_its_methods_and_the_sagas_that_call_it(served) -> None:
    async def used() -> dict:
        status: dict = (await served.get("participant", "payments"))["status"]
        assert "shop/fulfil-order" in status.get("usedBy", [])
        return status

    status = await eventually(used)
    methods = {method["name"]: method for method in status["methods"]}
    assert methods["Charge"] == {"name": "Charge", "kind": "guarded", "compensatedBy": "Refund", "callable": True}
    assert methods["GetPayment"]["kind"] == "read"


async def test_descriptors_may_come_from_a_config_map_that_comes_later(served) -> None:
    participant = next(d for d in served.example("shop/participants.yaml") if d["metadata"]["name"] == "shipping")
    participant["metadata"]["name"] = "described"
    participant["spec"] |= {
        "service": "shop.orders.v1.OrderService",
        "target": "127.0.0.1:9",
        "descriptors": {"configMapRef": {"name": "contracts", "key": "set"}},
    }
    await served.apply(participant)
    refused = await served.until("participant", "described", "Refused")
    assert "there is no ConfigMap contracts" in str(refused["status"]["conditions"])
    data = base64.b64encode(descriptor_set().SerializeToString()).decode()
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "contracts"}}
    # Not applied: kubectl would keep it in an annotation, which is too small for it.
    await served.kubectl("create", "-f", "-", stdin=yaml.safe_dump({**config_map, "binaryData": {"set": data}}))
    ready = await served.until("participant", "described", "Accepted")
    assert "PlaceOrder" in [method["name"] for method in ready["status"]["methods"]]
    await served.kubectl("delete", "participant", "described")


async def test_a_participant_whose_service_comes_later_is_ready_when_it_is_there(served) -> None:
    service = await FakeParticipant.start(descriptor_set(), ["shop.orders.v1.OrderService"])
    target = service.target
    await service.stop()
    participant = next(d for d in served.example("shop/participants.yaml") if d["metadata"]["name"] == "shipping")
    participant["metadata"]["name"] = "late"
    participant["spec"] |= {"service": "shop.orders.v1.OrderService", "target": target, "methods": ["Confirm"]}
    await served.apply(participant)
    waiting = await served.until("participant", "late", "NotReady")
    ready = next(found for found in waiting["status"]["conditions"] if found["type"] == "Ready")
    assert (ready["reason"], "reflection" in ready["message"]) == ("DescriptorsNotKnown", True)
    await service.listen(port=int(target.rpartition(":")[2]))
    found = await served.until("participant", "late", "Accepted")
    assert found["status"]["callable"] == 1
    assert {"name": "Confirm", "kind": "guarded", "callable": True} in found["status"]["methods"]
    await served.kubectl("delete", "participant", "late")
    await service.stop()


async def test_a_suspended_saga_leaves_the_orchestrator_alone(served) -> None:
    saga = saga_of(served, "resting")
    await served.apply(saga)
    before = await served.until("saga", "resting", "Accepted")
    saga["spec"] |= {"suspend": True, "deadline": "2m"}
    await served.apply(saga)
    assert (await served.until("saga", "resting", "Suspended"))["status"]["digest"] == before["status"]["digest"]
    info = await in_force(served, "resting")
    assert info is not None
    assert "deadline: 60s" in info.manifest
    saga["spec"]["suspend"] = False
    await served.apply(saga)
    await served.until("saga", "resting", "Accepted")
    info = await in_force(served, "resting")
    assert info is not None
    assert "deadline: 2m" in info.manifest


async def test_what_was_deleted_while_no_operator_was_there_is_taken_out_by_the_next(faulty) -> None:
    operator = await faulty.start()
    await faulty.apply(saga_of(faulty, "forgotten"))
    await faulty.until("saga", "forgotten", "Accepted")
    await operator.terminate()
    await faulty.kubectl("delete", "saga", "forgotten")
    assert await in_force(faulty, "forgotten") is not None
    heir = await faulty.start()

    async def out():
        return await in_force(faulty, "forgotten") is None

    await eventually(out)

    async def still_there():
        return await in_force(faulty, "fulfil-order") is not None

    await eventually(still_there)  # an operator hands over anew what a test before this one had the orchestrator lose
    await eventually(lambda: "definitions.taken_out" in heir.log.read_text(), what="the log of what was taken out")
    taken_out = [line for line in heir.log.read_text().splitlines() if "definitions.taken_out" in line]
    assert ["faulty/forgotten" in line for line in taken_out] == [True]


async def test_runs_are_counted_on_their_saga(served) -> None:
    saga = saga_of(served, "counted")
    await served.apply(saga)
    await served.until("saga", "counted", "Accepted")
    document = served.run("parked", "one-parked")
    document["spec"]["saga"] = "counted"
    await served.apply(document)
    parked = await served.until("sagarun", "one-parked", "Parked")

    async def counted():
        return (await served.get("saga", "counted"))["status"]["runs"] == {"running": 1, "parked": 1}

    await eventually(counted)
    (run,) = [run for run in await served.platform.runs("shop") if run.run_id == parked["status"]["runId"]]
    assert run.state == run_pb2.RUN_STATE_PARKED
