"""`amends diff`: what changes, for new runs and for those in flight."""

import json
from pathlib import Path

import pytest
from amends_cli.changes import changes
from amends_testkit.answers import ScriptedAnswer

from amends.saga.v1 import definition_service_pb2 as api

OLD = """\
apiVersion: amends.dev/v1alpha1
kind: Saga
metadata: {name: pay, namespace: shop}
spec:
  input: shop.orders.v1.PlaceOrderInput
  deadline: 60s
  steps:
    - name: charge
      call: shop.payments.v1.PaymentService/Charge
      request: "ChargeRequest{order_id: input.order_id}"
      compensate:
        call: shop.payments.v1.PaymentService/Refund
        request: "RefundRequest{order_id: input.order_id}"
    - {name: notify, call: shop.mail.v1.MailService/Send, request: "SendRequest{}"}
"""
NEW = (
    OLD.replace("60s", "90s")
    .replace("/Refund", "/Reverse")
    .replace("{name: notify, call: shop.mail.v1.MailService/Send", "{name: tell, call: shop.mail.v1.MailService/Push")
)
POLICY = """\
apiVersion: amends.dev/v1alpha1
kind: RetryPolicy
metadata: {name: patient, namespace: shop}
spec: {attempts: 4}
"""
NOW, BEFORE = "aa" * 32, "bb" * 32


@pytest.fixture
def in_force(orchestrator) -> None:
    """The saga OLD, with runs on it and on the one before it."""
    uses = [api.DigestUse(digest=NOW, running=3, parked=1), api.DigestUse(digest=BEFORE, running=2)]
    saga = api.SagaInfo(namespace="shop", name="pay", digest=NOW, ready=True, manifest=OLD, digests=uses)
    orchestrator.script("ListSagas", ScriptedAnswer.ok(api.ListSagasResponse(sagas=[saga])))


@pytest.fixture
def diff(amends, tmp_path: Path):
    async def run(text: str, *options: str):
        (tmp_path / "saga.yaml").write_text(text)
        return await amends("diff", "saga.yaml", *options)

    return run


@pytest.mark.usefixtures("in_force")
async def test_a_changed_saga_tells_what_changes_and_who_stays(diff) -> None:
    result = await diff(NEW)
    assert result.code == 0, result
    assert result.out.splitlines() == [
        "Saga shop/pay: changed",
        "  ~ deadline",
        "      - 60s",
        "      + 90s",
        "  ~ charge.compensate.call",
        "      - shop.payments.v1.PaymentService/Refund",
        "      + shop.payments.v1.PaymentService/Reverse",
        "  + step tell: shop.mail.v1.MailService/Push",
        "  - step notify: shop.mail.v1.MailService/Send",
        "  runs that start from now on get the change; those in flight end as they began:",
        f"    {NOW[:12]}  in force: 3 running, 1 of them parked",
        f"    {BEFORE[:12]}  older: 2 running",
        "",
    ]


@pytest.mark.usefixtures("in_force")
async def test_the_same_saga_in_other_words_is_unchanged(diff) -> None:
    folded = OLD.replace(
        'request: "ChargeRequest{order_id: input.order_id}"',
        "request: >-\n        ChargeRequest{order_id:\n        input.order_id}",
    )
    assert folded != OLD
    result = await diff(folded)
    assert result.out.splitlines()[0] == "Saga shop/pay: unchanged"
    assert "3 running" in result.out


async def test_a_saga_that_is_not_in_force_is_new(diff) -> None:
    assert (await diff(OLD)).out == "Saga shop/pay: new\n\n"


@pytest.mark.usefixtures("in_force")
async def test_a_change_that_would_be_refused_says_so_and_exits_with_1(diff, orchestrator) -> None:
    finding = api.Finding(code="AM029", severity=api.SEVERITY_ERROR, message="There is no Reverse.", source="saga.yaml")
    orchestrator.script("CheckSaga", ScriptedAnswer.ok(api.CheckSagaResponse(findings=[finding])))
    result = await diff(NEW)
    assert result.code == 1
    assert "error AM029: There is no Reverse." in result.out
    assert "charge.compensate.call" in result.out


@pytest.mark.usefixtures("in_force")
async def test_the_difference_is_data_too(diff) -> None:
    (row,) = json.loads((await diff(NEW, "-o", "json")).out)["resources"]
    assert (row["kind"], row["state"], row["digest"]) == ("Saga", "changed", NOW)
    assert row["changes"][0] == {"step": "", "field": "deadline", "before": "60s", "after": "90s"}
    assert row["digests"] == [
        {"digest": NOW, "running": 3, "parked": 1},
        {"digest": BEFORE, "running": 2, "parked": 0},
    ]


async def test_a_changed_policy_holds_for_runs_in_flight(diff, orchestrator) -> None:
    known = api.RetryPolicyInfo(namespace="shop", name="patient", manifest=POLICY)
    orchestrator.script("ListRetryPolicies", ScriptedAnswer.ok(api.ListRetryPoliciesResponse(retry_policies=[known])))
    result = await diff(POLICY.replace("4", "5"))
    assert "RetryPolicy shop/patient: changed" in result.out
    assert "runs in flight too, from their next attempt on" in result.out
    assert (await diff(POLICY)).out == "RetryPolicy shop/patient: unchanged\n\n"


@pytest.mark.usefixtures("in_force")
async def test_a_choreography_that_is_not_compared_is_named(diff) -> None:
    other = "apiVersion: amends.dev/v1alpha1\nkind: Choreography\nmetadata: {name: orders, namespace: shop}\n"
    result = await diff(f"{OLD}---\n{other}")
    assert "choreography orders is not compared" in result.err


async def test_files_without_definitions_are_wrong_use(diff) -> None:
    run = "apiVersion: amends.dev/v1alpha1\nkind: SagaRun\nmetadata: {name: x}\nspec: {saga: pay}\n"
    assert (await diff(run)).code == 2
    assert (await diff("kind: [")).code == 1


def test_a_step_that_moved_follows_another_one_now() -> None:
    steps = [{"name": "a", "call": "s/A"}, {"name": "b", "call": "s/B"}]
    found = changes({"steps": steps}, {"steps": steps[::-1]})
    assert [(change.step, change.field, change.before, change.after) for change in found] == [
        ("b", "after", ["a"], []),
        ("a", "after", [], ["b"]),
    ]


def test_what_only_kubernetes_knows_is_no_change() -> None:
    assert changes({"input": "x"}, {"input": "x", "suspend": True}) == []
