"""`amends apply` and `amends list`: order, line numbers, descriptors, refusals."""

import json
from pathlib import Path

import pytest
import yaml
from amends_contracts import descriptor_set
from amends_testkit.answers import ScriptedAnswer

from amends.saga.v1 import definition_service_pb2 as api

DOCUMENTS = """\
# the saga comes first in the file
apiVersion: amends.dev/v1alpha1
kind: Saga
metadata: {name: pay}
spec: {}
---
apiVersion: amends.dev/v1alpha1
kind: RetryPolicy
metadata: {name: patient, namespace: shop}
spec: {}
---
apiVersion: amends.dev/v1alpha1
kind: Participant
metadata: {name: payments}
spec: {service: shop.payments.v1.PaymentService}
"""
ACCEPTED = {
    "ApplySaga": api.ApplySagaResponse(accepted=True, digest="abcdef0123456789"),
    "ApplyParticipant": api.ApplyParticipantResponse(accepted=True),
    "ApplyRetryPolicy": api.ApplyRetryPolicyResponse(accepted=True),
}


def accept(orchestrator) -> None:
    for method, response in ACCEPTED.items():
        orchestrator.script(method, ScriptedAnswer.ok(response))


async def test_what_others_need_is_applied_first_and_every_line_keeps_its_number(
    amends, orchestrator, tmp_path
) -> None:
    accept(orchestrator)
    (tmp_path / "all.yaml").write_text(DOCUMENTS)
    result = await amends("apply", "all.yaml")
    assert result.code == 0, result.err
    assert [call.method for call in orchestrator.received] == ["ApplyParticipant", "ApplyRetryPolicy", "ApplySaga"]
    text = orchestrator.received[0].request.manifest.text
    assert text.splitlines()[12] == "kind: Participant"
    assert yaml.safe_load(text)["metadata"]["name"] == "payments"
    assert [line.split() for line in result.out.splitlines()[1:]] == [
        ["participant", "default/payments", "applied"],
        ["retrypolicy", "shop/patient", "applied"],
        ["saga", "default/pay", "applied", "abcdef012345"],
    ]


async def test_descriptors_go_with_the_participant_whose_service_they_declare(amends, orchestrator, tmp_path) -> None:
    accept(orchestrator)
    (tmp_path / "all.yaml").write_text(DOCUMENTS)
    (tmp_path / "set.binpb").write_bytes(descriptor_set().SerializeToString())
    await amends("apply", "--descriptors", "set.binpb", "all.yaml")
    assert b"PaymentService" in orchestrator.calls("ApplyParticipant")[0].request.descriptors


async def test_a_refused_saga_is_shown_with_its_findings_and_exits_with_1(amends, orchestrator, tmp_path) -> None:
    accept(orchestrator)
    finding = api.Finding(
        code="AM010",
        severity=api.SEVERITY_ERROR,
        message="No.",
        hint="Do.",
        source="all.yaml",
        line=4,
        column=5,
        excerpt="a: [word]",
        width=4,
    )
    orchestrator.script("ApplySaga", ScriptedAnswer.ok(api.ApplySagaResponse(findings=[finding])))
    (tmp_path / "all.yaml").write_text(DOCUMENTS)
    result = await amends("apply", "all.yaml")
    assert result.code == 1
    assert "all.yaml:4:5: error AM010: No." in result.out
    assert "\n4 | a: [word]\n  |     ^^^^\n" in result.out
    assert "= Do." in result.out
    assert "refused" in result.out
    as_json = json.loads((await amends("apply", "-o", "json", "all.yaml")).out)
    assert [row["result"] for row in as_json] == ["applied", "applied", "refused"]
    assert as_json[2]["findings"][0]["code"] == "AM010"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: [", "all.yaml:1:8: error AM001"),
        ("- 1", "all.yaml:1:1: error AM009"),
        ("apiVersion: amends.dev/v1alpha1\nkind: Sagaa\nmetadata: {name: x}", "Did you mean `Saga`?"),
        (DOCUMENTS + "---\nhello", "it is text"),
    ],
)
async def test_a_file_that_holds_something_else_is_a_finding_and_nothing_is_applied(
    amends, orchestrator, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "all.yaml").write_text(text)
    result = await amends("apply", "all.yaml")
    assert (result.code, orchestrator.received) == (1, [])
    assert said in result.out


async def test_a_file_without_resources_and_one_with_runs_are_wrong_use(amends, orchestrator, tmp_path: Path) -> None:
    a_run = "---\napiVersion: amends.dev/v1alpha1\nkind: SagaRun\nmetadata: {name: x}\nspec: {saga: pay}\n"
    for text, said in (("# nothing", "there is no resource"), (DOCUMENTS + a_run, "amends start")):
        (tmp_path / "all.yaml").write_text(text)
        result = await amends("apply", "all.yaml")
        assert (result.code, orchestrator.received) == (2, [])
        assert said in result.err


async def test_what_is_in_force_and_not_ready_says_why(amends, orchestrator, tmp_path: Path) -> None:
    accept(orchestrator)
    away = api.ParticipantInfo(message="its descriptors could not be read")
    orchestrator.script(
        "ApplyParticipant", ScriptedAnswer.ok(api.ApplyParticipantResponse(accepted=True, participant=away))
    )
    (tmp_path / "all.yaml").write_text(DOCUMENTS)
    result = await amends("apply", "all.yaml")
    assert "applied, not ready: its descriptors could not be read" in result.out
    assert result.code == 0


@pytest.mark.parametrize(
    ("name", "method"),
    [("saga/pay", "DeleteSaga"), ("participant/p", "DeleteParticipant"), ("policy/r", "DeleteRetryPolicy")],
)
async def test_a_resource_is_taken_out_of_force(amends, orchestrator, name: str, method: str) -> None:
    assert (await amends("delete", name, "-n", "shop")).code == 1
    orchestrator.script(method, ScriptedAnswer.ok(deleted=True))
    result = await amends("delete", name, "-n", "shop")
    assert (result.code, result.err) == (0, f"{name.replace('/', ' shop/')} deleted\n")
    assert orchestrator.calls(method)[-1].request.name == name.partition("/")[2]


@pytest.mark.parametrize("name", ["pay", "frog/pay", "saga/"])
async def test_only_what_has_a_kind_and_a_name_can_be_deleted(amends, orchestrator, name: str) -> None:
    assert (await amends("delete", name)).code == 2
    assert orchestrator.received == []


async def test_sagas_are_listed_with_their_runs(amends, orchestrator) -> None:
    uses = [api.DigestUse(digest="aa", running=3, parked=1), api.DigestUse(digest="bb", running=2)]
    saga = api.SagaInfo(namespace="shop", name="pay", digest="bb" * 32, ready=True, steps=["a", "b"], digests=uses)
    broken = api.SagaInfo(namespace="shop", name="old", message="its participant is gone")
    orchestrator.script("ListSagas", ScriptedAnswer.ok(api.ListSagasResponse(sagas=[saga, broken])))
    result = await amends("list", "sagas", "-n", "shop")
    assert orchestrator.calls("ListSagas")[0].request.namespace == "shop"
    assert [line.split() for line in result.out.splitlines()] == [
        ["NAMESPACE", "NAME", "READY", "STEPS", "RUNNING", "PARKED"],
        ["shop", "pay", "yes", "a", "b", "5", "1"],
        ["shop", "old", "no:", "its", "participant", "is", "gone", "0", "0"],
    ]
    assert "bbbbbbbbbbbb" in (await amends("list", "sagas", "-o", "wide")).out


async def test_participants_and_policies_are_listed(amends, orchestrator) -> None:
    methods = [api.MethodInfo(name="Charge", kind="guarded", callable=True), api.MethodInfo(name="Secret", kind="once")]
    participant = api.ParticipantInfo(
        name="payments", service="s.v1.S", target="127.0.0.1:1", ready=True, methods=methods
    )
    orchestrator.script("ListParticipants", ScriptedAnswer.ok(api.ListParticipantsResponse(participants=[participant])))
    policy = api.RetryPolicyInfo(name="patient", attempts=4)
    policy.timeout.seconds = 2
    orchestrator.script("ListRetryPolicies", ScriptedAnswer.ok(api.ListRetryPoliciesResponse(retry_policies=[policy])))
    wide = (await amends("list", "participants", "-o", "wide")).out
    assert "Charge:guarded" in wide
    assert "Secret" not in wide
    assert yaml.safe_load((await amends("list", "policies", "-o", "yaml")).out) == [
        {"name": "patient", "attempts": 4, "timeout": "2s"}
    ]


async def test_nothing_to_list_is_said_beside_the_data(amends) -> None:
    result = await amends("list", "sagas")
    assert (result.out, result.err) == ("", "no sagas\n")
    assert (await amends("list", "sagas", "-o", "json")).out == "[]\n"


async def test_one_resource_is_shown_and_a_missing_one_is_a_failure(amends, orchestrator) -> None:
    saga = api.SagaInfo(namespace="default", name="pay", ready=True, manifest="kind: Saga")
    orchestrator.script("ListSagas", ScriptedAnswer.ok(api.ListSagasResponse(sagas=[saga])))
    assert json.loads((await amends("get", "saga/pay", "-o", "json")).out)["manifest"] == "kind: Saga"
    missing = await amends("get", "saga/pya")
    assert missing.code == 1
    assert "there is no saga default/pya" in missing.err
    assert (await amends("get", "frog/pay")).code == 2
