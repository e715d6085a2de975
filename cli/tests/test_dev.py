"""`amends dev` as a whole: a saga over servers that are not ours, data that stays, an end without remains."""

import json
import signal
import socket
import sys
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from amends_contracts import descriptor_set
from amends_embedded import Child
from amends_testkit.answers import ScriptedAnswer
from amends_testkit.participant import FakeParticipant
from amends_testkit.waiting import eventually

from .devserver import dev

PAYMENTS = "shop.payments.v1.PaymentService"
MANIFESTS = """\
apiVersion: amends.dev/v1alpha1
kind: Participant
metadata: {{name: payments}}
spec: {{service: shop.payments.v1.PaymentService, target: "{target}", methods: ["*"], callers: [default]}}
---
apiVersion: amends.dev/v1alpha1
kind: Saga
metadata: {{name: pay}}
spec:
  input: {{order_id: string, close: bool}}
  deadline: 30s
  steps:
    - name: charge
      call: shop.payments.v1.PaymentService/Charge
      request: "ChargeRequest{{order_id: input.order_id}}"
      compensate:
        call: shop.payments.v1.PaymentService/Refund
        request: "RefundRequest{{order_id: input.order_id}}"
    - name: close
      pivot: true
      call: shop.payments.v1.PaymentService/CloseDispute
      request: "CloseDisputeRequest{{order_id: input.order_id}}"
"""


@pytest.mark.parametrize("reflect", [True, False], ids=["by reflection", "by descriptors alone"])
async def test_a_service_that_is_not_ours_is_driven_and_its_runs_outlive_a_restart(
    run, tmp_path: Path, reflect
) -> None:
    (tmp_path / "set.binpb").write_bytes(descriptor_set().SerializeToString())
    known = [] if reflect else ["--descriptors", "set.binpb"]
    async with await FakeParticipant.start(descriptor_set(), [PAYMENTS], reflect=reflect) as payments:
        (tmp_path / "pay.yaml").write_text(MANIFESTS.format(target=payments.target))
        async with dev(tmp_path, "--data", str(tmp_path / "data")) as (_, address):
            at = ("--address", address)
            applied = await run("apply", "pay.yaml", *known, *at)
            assert applied.code == 0, applied
            good = await run("start", "pay", "--key", "k-1", "-i", '{"orderId": "o-1"}', "--watch", *at)
            assert good.code == 0, good
            assert good.out.splitlines()[-1].startswith("COMPLETED")
            payments.script(
                "CloseDispute", ScriptedAnswer.refused(grpc.StatusCode.FAILED_PRECONDITION, "NO", "not now")
            )
            bad = await run("start", "pay", "--key", "k-2", "-i", '{"orderId": "o-2"}', "--wait", "-o", "json", *at)
            assert bad.code == 4
            assert json.loads(bad.out)["state"] == "RUN_STATE_COMPENSATED"
        async with dev(tmp_path, "--data", str(tmp_path / "data")) as (_, address):
            found = await run("list", "--address", address, "-o", "json")
            assert found.code == 0, found
            listed = json.loads(found.out)
            assert [(row["idempotencyKey"], row["state"]) for row in listed] == [
                ("k-2", "RUN_STATE_COMPENSATED"),
                ("k-1", "RUN_STATE_COMPLETED"),
            ]
    assert [method for method, _ in payments.effects] == ["Charge", "CloseDispute", "Charge", "Refund"]


async def test_a_second_dev_over_the_same_data_says_so(run, tmp_path: Path) -> None:
    async with dev(tmp_path, "--data", str(tmp_path / "data")):
        second = await second_dev(tmp_path, "--port", "0", "--data", str(tmp_path / "data"))
        assert second.exit_code == 1
        assert "Another `amends dev` uses this folder." in second.tail()


async def test_a_taken_port_is_wrong_use(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        child = await second_dev(tmp_path, "--port", str(taken.getsockname()[1]))
    assert child.exit_code == 2
    assert "Choose one with --port" in child.tail()


async def second_dev(tmp_path: Path, *options: str) -> Child:
    child = Child.start("second", [sys.executable, "-m", "amends_cli", "dev", *options], log=tmp_path / "second.log")
    await child.wait(timedelta(seconds=60))
    return child


async def test_a_stop_while_it_starts_ends_it_with_success(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    command = [sys.executable, "-m", "amends_cli", "dev", "--port", "0"]
    child = Child.start("dev", command, log=tmp_path / "dev.log")
    try:
        await eventually(lambda: list(tmp_path.glob("amends-dev/*.json")), what="the file of a dev that starts")
        child.process.send_signal(signal.SIGTERM)
        assert await child.wait(timedelta(seconds=60)) == 0, child.tail()
    finally:
        child.kill()
    assert child.tail().splitlines() == ["stopping"]
