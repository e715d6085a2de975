"""`amends webhooks`: what is asked of the orchestrator, what is shown, and how it exits."""

import json
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from amends_testkit.answers import ScriptedAnswer

from amends.events.v1 import webhooks_pb2 as pb

EVENT = "018f0000-0000-7000-8000-000000000001"
EVIL = "evil\x1b[2J\nerror: forged"


@pytest.fixture
def parked(orchestrator):
    event = pb.ParkedWebhook(
        webhook="on-call",
        event_id=EVENT,
        key="run-1",
        type="amends.events.v1.RunParked",
        attempts=16,
        detail=f"it answered 500 {EVIL}",
        behind=2,
    )
    event.occurred_at.FromDatetime(datetime.now(UTC) - timedelta(hours=5))
    event.parked_at.FromDatetime(datetime.now(UTC))
    orchestrator.script("ListParkedWebhooks", ScriptedAnswer.ok(pb.ListParkedWebhooksResponse(parked=[event])))


async def test_webhooks_are_listed_with_what_waits(amends, orchestrator):
    webhook = pb.Webhook(name="on-call", origin="https://hooks.example.com", due=3, configured=True)
    webhook.types.append("RunParked")
    webhook.oldest_due.FromDatetime(datetime.now(UTC) - timedelta(minutes=10))
    left = pb.Webhook(name="former", parked=1)
    orchestrator.script("ListWebhooks", ScriptedAnswer.ok(pb.ListWebhooksResponse(webhooks=[webhook, left])))
    result = await amends("webhooks", "list")
    first, second = (line.split() for line in result.out.splitlines()[1:])
    assert first == ["on-call", "https://hooks.example.com", "3", "0", "10m", "RunParked", "all", "named"]
    assert second == ["former", "-", "0", "1", "-", "all", "all", "not", "named", "any", "more"]
    assert (await amends("webhooks", "list", "-o", "name")).out == "on-call\nformer\n"


async def test_without_any_it_says_so_and_machines_get_an_empty_list(amends, orchestrator):
    result = await amends("webhooks", "list")
    assert (result.code, result.out) == (0, "")
    assert "there are no webhooks" in result.err
    assert json.loads((await amends("webhooks", "list", "-o", "json")).out) == []


@pytest.mark.parametrize("delivered", [True, False])
async def test_a_test_says_what_came_of_it(amends, orchestrator, delivered):
    answer = pb.TestWebhookResponse(delivered=delivered, detail="it answered 500")
    orchestrator.script("TestWebhook", ScriptedAnswer.ok(answer))
    result = await amends("webhooks", "test", "on-call")
    assert (result.code, result.out) == (0 if delivered else 1, "on-call: it answered 500\n")
    assert orchestrator.calls("TestWebhook")[0].request.webhook == "on-call"


async def test_parked_events_are_listed_by_a_name_to_copy_and_no_terminal_obeys_what_they_say(
    amends, orchestrator, parked
):
    result = await amends("webhooks", "parked", "--webhook", "on-call", "--limit", "5")
    assert f"on-call/{EVENT}" in result.out
    assert "RunParked" in result.out
    assert "5h" in result.out
    assert "\x1b" not in result.out
    assert len(result.out.splitlines()) == 2
    request = orchestrator.calls("ListParkedWebhooks")[0].request
    assert (request.webhook, request.limit) == ("on-call", 5)


@pytest.mark.parametrize(("command", "decision"), [("retry", "RETRY"), ("skip", "SKIP")])
async def test_a_decision_has_an_actor_and_a_reason(amends, orchestrator, command, decision):
    name = f"on-call/{EVENT}"
    result = await amends("webhooks", command, name, "--reason", "mended", "--actor", "ada")
    assert (result.code, name in result.out) == (0, True)
    request = orchestrator.calls("DecideWebhook")[0].request
    assert (request.webhook, request.event_id, request.reason, request.actor) == ("on-call", EVENT, "mended", "ada")
    assert request.decision == pb.WebhookDecision.Value(f"WEBHOOK_DECISION_{decision}")
    assert (await amends("webhooks", command, name)).code == 2
    assert (await amends("webhooks", command, "on-call", "--reason", "mended")).code == 2


async def test_a_refused_decision_says_what_to_look_at(amends, orchestrator):
    refused = ScriptedAnswer.refused(grpc.StatusCode.FAILED_PRECONDITION, "EVENT_NOT_PARKED", "It is delivered.")
    orchestrator.script("DecideWebhook", refused)
    result = await amends("webhooks", "retry", f"on-call/{EVENT}", "--reason", "mended")
    assert result.code == 1
    assert "It is delivered." in result.err
    assert "amends webhooks parked" in result.err


async def test_a_replay_begins_so_long_ago(amends, orchestrator):
    orchestrator.script("ReplayWebhook", ScriptedAnswer.ok(pb.ReplayWebhookResponse(events=7)))
    result = await amends(
        "webhooks", "replay", "on-call", "--since", "2h", "--reason", "they lost it", "--key", "run-1"
    )
    assert (result.code, result.out) == (0, "on-call is sent 7 events again\n")
    request = orchestrator.calls("ReplayWebhook")[0].request
    assert abs(request.since.ToDatetime(UTC) - (datetime.now(UTC) - timedelta(hours=2))) < timedelta(minutes=1)
    assert (request.webhook, request.key, request.reason) == ("on-call", "run-1", "they lost it")
    assert "@" in request.actor
    assert (await amends("webhooks", "replay", "on-call", "--since", "soon", "--reason", "r")).code == 2
