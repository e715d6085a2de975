"""What is printed to be copied can be copied: each line that a parked run shows is accepted as it stands."""

import asyncio
import os
import shlex
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from amends_contracts import descriptor_set
from amends_embedded import Child
from amends_saga.engine.events import ParkReason
from amends_testkit.answers import ScriptedAnswer
from amends_testkit.participant import FakeParticipant
from amends_testkit.waiting import eventually
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from .devserver import dev
from .test_dev import PAYMENTS

SAGA = """\
apiVersion: amends.dev/v1alpha1
kind: Participant
metadata: {{name: payments, namespace: {namespace}}}
spec:
  service: shop.payments.v1.PaymentService
  target: "{target}"
  callers: [{namespace}]
  barrierRetention: {retention}
  methods:
    - {{name: Charge}}
    - {{name: Refund}}
    - {{name: CloseDispute, {close}}}
---
apiVersion: amends.dev/v1alpha1
kind: RetryPolicy
metadata: {{name: quick, namespace: {namespace}}}
spec: {{timeout: {timeout}, attempts: 2, backoff: {{initial: 10ms, max: 20ms}}, circuitBreaker: {{minimumCalls: 1000}}}}
---
apiVersion: amends.dev/v1alpha1
kind: Saga
metadata: {{name: pay, namespace: {namespace}}}
spec:
  input: {{order_id: string}}
  deadline: {deadline}
  stalledAfter: 100ms
  steps:
    - name: charge
      call: shop.payments.v1.PaymentService/Charge
      request: "ChargeRequest{{order_id: input.order_id}}"
      compensate:
        call: shop.payments.v1.PaymentService/Refund
        request: "RefundRequest{{order_id: input.order_id + string(1 / size(charge.payment_id))}}"
    - name: close
      pivot: true
      call: shop.payments.v1.PaymentService/CloseDispute
      request: "CloseDisputeRequest{{order_id: charge.payment_id}}"
"""
AMENDED = (
    SAGA.partition("      compensate:")[0]
    + """\
      pivot: true
    - name: close
      call: shop.payments.v1.PaymentService/CloseDispute
      request: "CloseDisputeRequest{{order_id: charge.payment_id}}"
  afterPivot:
    - name: give_back
      call: shop.payments.v1.PaymentService/Refund
      request: "RefundRequest{{order_id: input.order_id}}"
"""
)
DEFAULT = {
    "namespace": "default",
    "retention": "30d",
    "close": "idempotency: IDEMPOTENT",
    "timeout": "5s",
    "deadline": "60s",
}
# A run is parked a day before the barrier forgets it, and a barrier remembers a day longer than a deadline.
FORGETFUL = DEFAULT | {"namespace": "forgetful", "retention": "24h4100ms", "timeout": "300ms", "deadline": "4s"}
HASTY = DEFAULT | {"namespace": "hasty", "close": "idempotency: KEYED, window: 1ms"}
LARGEST_ANSWER = 4 * 1024 * 1024
CHARGED = {"Charge": ScriptedAnswer.ok(payment_id="p")}
NO = ScriptedAnswer.refused(grpc.StatusCode.FAILED_PRECONDITION, text="no")
AWAY = ScriptedAnswer.refused(grpc.StatusCode.UNAVAILABLE, text="away")
PARKING: dict[ParkReason, dict[str, ScriptedAnswer]] = {
    ParkReason.REJECTED: CHARGED | {"CloseDispute": NO, "Refund": NO},
    ParkReason.PLAIN_IN_DOUBT: CHARGED | {"CloseDispute": AWAY},
    ParkReason.KEY_REUSED: {"Charge": ScriptedAnswer.refused(grpc.StatusCode.FAILED_PRECONDITION, "KEY_REUSED")},
    ParkReason.NOT_GUARDED: CHARGED,
    ParkReason.ACTION_UNKNOWN: CHARGED
    | {"CloseDispute": NO, "Refund": ScriptedAnswer.refused(grpc.StatusCode.FAILED_PRECONDITION, "ACTION_UNKNOWN")},
    ParkReason.ANSWER_TOO_LARGE: {"Charge": ScriptedAnswer.ok(payment_id="p" * LARGEST_ANSWER)},
    ParkReason.EXPRESSION_FAILED: {"Charge": ScriptedAnswer.ok(), "CloseDispute": NO},
    ParkReason.RETENTION_PASSED: CHARGED | {"CloseDispute": NO, "Refund": AWAY},
    ParkReason.WINDOW_PASSED: CHARGED | {"CloseDispute": AWAY},
    ParkReason.BY_PERSON: CHARGED | {"CloseDispute": NO, "Refund": AWAY},
}
"""What payments answers, so that a run parks for each reason."""


def contract() -> FileDescriptorSet:
    """Return the shop's contracts; what CloseDispute promises is for the Participant to say."""
    files = descriptor_set()
    for file in files.file:
        for method in (
            method for service in file.service for method in service.method if method.name == "CloseDispute"
        ):
            method.options.ClearField("idempotency_level")
    return files


def printed(out: str) -> list[list[str]]:
    return [shlex.split(line) for line in out.splitlines() if line.startswith("  amends resolve ")]


@pytest.mark.timeout(300)
async def test_each_line_that_a_parked_run_prints_is_accepted_as_it_stands(run, tmp_path: Path) -> None:
    async with await FakeParticipant.start(contract(), [PAYMENTS]) as payments, dev(tmp_path) as (_, address):
        at = ("--address", address)
        namespaces = {
            None: DEFAULT,
            ParkReason.RETENTION_PASSED: FORGETFUL,
            ParkReason.WINDOW_PASSED: HASTY,
        }
        for facts in namespaces.values():
            (tmp_path / "pay.yaml").write_text(SAGA.format(target=payments.target, **facts))
            applied = await run("apply", "pay.yaml", *at)
            assert applied.code == 0, applied

        async def parked(reason: ParkReason, key: str) -> list[list[str]]:
            for method in ("Charge", "CloseDispute", "Refund"):
                payments.script(method, PARKING[reason].get(method, ScriptedAnswer.ok()))
            payments.trailer = reason is not ParkReason.NOT_GUARDED
            space = namespaces.get(reason, DEFAULT)["namespace"]
            named = ("pay", "-n", space, "--key", key, "-i", '{"orderId": "o"}', *at)
            if reason is ParkReason.BY_PERSON:
                run_id = (await run("start", *named)).out.split()[0]

                async def is_parked() -> bool:
                    return (await run("resolve", run_id, "park", "--reason", "look", *at)).code == 0

                await eventually(is_parked, what="a run that stalled and is parked")
            started = await run("start", *named, "--wait")
            assert started.code == 5, (reason, started)
            assert f"({reason})" in started.out
            return printed(started.out)

        for reason in ParkReason:
            lines = await parked(reason, reason)
            assert lines, reason
            for number in range(len(lines)):
                words = (await parked(reason, f"{reason}-{number}"))[number]
                taken = await run(*words[1:], *at)
                assert taken.code == 0, (reason, words, taken)


async def test_each_amendment_that_a_parked_run_prints_is_accepted_as_it_stands(run, tmp_path: Path) -> None:
    async with await FakeParticipant.start(descriptor_set(), [PAYMENTS]) as payments, dev(tmp_path) as (_, address):
        (tmp_path / "pay.yaml").write_text(AMENDED.format(target=payments.target, **DEFAULT))
        at = ("--address", address)
        applied = await run("apply", "pay.yaml", *at)
        assert applied.code == 0, applied
        payments.script("CloseDispute", NO)
        for number in range(2):
            started = await run("start", "pay", "--key", f"k{number}", "-i", '{"orderId": "o"}', "--wait", *at)
            assert started.code == 5, started
            lines = [words for words in printed(started.out) if "amend" in words]
            assert [words[3:6] for words in lines] == [["amend", "give_back", "--effect"]] * 2
            taken = await run(*lines[number][1:], *at)
            assert taken.code == 0, taken
            ended = await run("watch", lines[number][2], *at)
            assert ended.code == 0, ended
            assert "COMPLETED (amended by a person: give_back)" in ended.out


async def test_an_ended_run_and_a_short_id_are_told_apart_from_what_is_not_there(run, tmp_path: Path) -> None:
    async with await FakeParticipant.start(descriptor_set(), [PAYMENTS]) as payments, dev(tmp_path) as (_, address):
        (tmp_path / "pay.yaml").write_text(SAGA.format(target=payments.target, **DEFAULT))
        at = ("--address", address)
        await run("apply", "pay.yaml", *at)
        for key in ("one", "two"):
            ended = await run("start", "pay", "--key", key, "-i", '{"orderId": "o"}', "--wait", *at)
            assert ended.code == 0, ended
        names = (await run("list", "-o", "name", *at)).out.split()
        assert len(names) == 2
        whole = await run("get", names[0], *at)
        assert (await run("get", names[0][:-1], *at)).out == whole.out
        several = await run("get", names[0][:4], *at)
        assert several.code == 2
        assert names[0] in several.err
        assert names[1] in several.err
        assert (await run("get", "ffff", *at)).code == 1
        assert (await run("get", "no-such-key", *at)).code == 2
        assert "in the namespace default" in (await run("get", names[0], "-n", "shop", *at)).err
        assert "add `-n default`" in (await run("get", "--key", "one", "-n", "shop", *at)).err
        assert "add `-n default`" in (await run("get", "saga", "pay", "-n", "shop", *at)).err


async def test_dev_in_the_background_is_found_first_and_stopped_by_name(run, tmp_path: Path) -> None:
    (tmp_path / ".amends").mkdir()
    (tmp_path / ".amends/address").write_text("127.0.0.1:9\n")
    command = [sys.executable, "-m", "amends_cli", "dev", "--detach", "--port", "0", "--data", str(tmp_path / "data")]
    told = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
    started = await asyncio.to_thread(subprocess.run, command, env=told, capture_output=True, text=True)
    try:
        assert started.returncode == 0, started
        assert "The orchestrator listens on" in started.stdout
        listed = await run("list")
        assert (listed.code, listed.out) == (0, "")
        assert "from `amends dev`" in listed.err
    finally:
        stopped = await run("dev", "--stop")
    assert stopped.code == 0, stopped
    assert (await run("dev", "--stop")).code == 1
    assert (await run("list")).code == 3


async def test_dev_ends_when_it_is_asked_to_before_it_is_ready(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "amends_cli", "dev", "--port", "0", "--data", str(tmp_path / "data")]
    child = Child.start("dev", command, log=tmp_path / "dev.log", environment={"XDG_RUNTIME_DIR": str(tmp_path)})
    try:
        # Its orchestrator has begun, and takes a while to be ready.
        await eventually((tmp_path / "data" / "orchestrator.log").exists, timeout=timedelta(seconds=60), what="a log")
        child.process.send_signal(signal.SIGINT)
        assert await child.wait(timedelta(seconds=30)) == 0, child.tail()
        assert "listens on" not in (tmp_path / "dev.log").read_text()
    finally:
        child.kill()
