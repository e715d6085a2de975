"""WebhookService: what an administrator sees of webhooks, and decides about them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import structlog
from amends_chassis.database import Executes
from amends_chassis.errors import FailedPrecondition, InvalidArgument, NotFound
from amends_events.envelope import new_event_id
from google.protobuf.timestamp_pb2 import Timestamp

from amends.events.v1 import webhooks_pb2 as pb
from amends.events.v1.webhooks_pb2_grpc import WebhookServiceServicer
from amends_orchestrator.announcer import SOURCE
from amends_orchestrator.api.request_checks import check_request, check_said
from amends_orchestrator.webhooks import deliveries
from amends_orchestrator.webhooks.destinations import Destination
from amends_orchestrator.webhooks.sender import WebhookSender

SERVICE = "amends.events.v1.WebhookService"
TEST = "amends.events.v1.WebhookTest"
"""The type of the event that a test sends; it is no event of a topic, and has no data."""
MOST_LISTED = 1000
DECISIONS = {pb.WEBHOOK_DECISION_RETRY: deliveries.RETRY, pb.WEBHOOK_DECISION_SKIP: deliveries.SKIP}
DECIDED, REPLAYED, TESTED = "webhooks.decided", "webhooks.replayed", "webhooks.tested"
_log = structlog.get_logger(__name__)


class WebhookApi(WebhookServiceServicer):
    """Serves webhooks to administrators and the CLI."""

    def __init__(self, database: Executes, sender: WebhookSender | None) -> None:
        """Serve the webhooks of a sender; without one there are none, but events may be left of former ones."""
        self._database = database
        self._sender = sender

    @property
    def _configured(self) -> Mapping[str, Destination]:
        return self._sender.destinations.current.by_name if self._sender is not None else {}

    def _destination(self, name: str) -> Destination:
        destination = self._configured.get(name)
        if destination is None:
            raise NotFound("WEBHOOK_UNKNOWN", f"There is no webhook {name!r} in the settings.")
        return destination

    async def ListWebhooks(self, request: pb.ListWebhooksRequest, context: Any) -> pb.ListWebhooksResponse:
        """List the destinations, and those of which only events are left."""
        configured = self._configured
        names = sorted(configured.keys() | set(await deliveries.names(self._database)))
        counts = {(one.webhook, one.state): one for one in await deliveries.count(self._database, names)}
        shown = []
        for name in names:
            due, parked = counts[name, "due"], counts[name, "parked"]
            webhook = pb.Webhook(name=name, due=due.events, parked=parked.events, configured=name in configured)
            if due.oldest is not None:
                webhook.oldest_due.FromDatetime(due.oldest)
            if (destination := configured.get(name)) is not None:
                webhook.origin = destination.url.origin
                webhook.types.extend(destination.types)
                webhook.namespaces.extend(destination.namespaces)
                webhook.sagas.extend(destination.sagas)
            shown.append(webhook)
        return pb.ListWebhooksResponse(webhooks=shown)

    async def TestWebhook(self, request: pb.TestWebhookRequest, context: Any) -> pb.TestWebhookResponse:
        """Send a test now, beside what is due."""
        check_request(request)
        destination = self._destination(request.webhook)
        assert self._sender is not None
        event_id = new_event_id()
        outcome = await self._sender.attempt(destination, event_id, _test(event_id, request.webhook))
        _log.info(TESTED, webhook=request.webhook, delivered=outcome.delivered, detail=outcome.detail)
        return pb.TestWebhookResponse(delivered=outcome.delivered, detail=outcome.detail)

    async def ListParkedWebhooks(
        self, request: pb.ListParkedWebhooksRequest, context: Any
    ) -> pb.ListParkedWebhooksResponse:
        """List parked events, oldest first."""
        check_request(request)
        limit = min(request.limit, MOST_LISTED) if request.limit > 0 else 100
        rows = await deliveries.list_parked(self._database, request.webhook, limit)
        return pb.ListParkedWebhooksResponse(parked=[_parked(row) for row in rows])

    async def DecideWebhook(self, request: pb.DecideWebhookRequest, context: Any) -> pb.DecideWebhookResponse:
        """Have a parked event tried again, or left out."""
        check_request(request)
        check_said("actor", request.actor)
        check_said("reason", request.reason)
        decision = DECISIONS.get(request.decision)
        if decision is None:
            raise InvalidArgument("DECISION_INVALID", "Say what to do: retry or skip.")
        event_id = _event_id(request.event_id)
        place = request.webhook, event_id
        if not await deliveries.decide(self._database, *place, decision, request.actor, request.reason):
            state = await deliveries.state_of(self._database, *place)
            if state is None:
                raise NotFound("EVENT_UNKNOWN", f"There is no event {event_id} for the webhook {request.webhook!r}.")
            raise FailedPrecondition("EVENT_NOT_PARKED", f"The event is not parked, it is {state}.")
        _log.info(
            DECIDED,
            webhook=request.webhook,
            event_id=str(event_id),
            decision=decision,
            actor=request.actor,
            reason=request.reason,
        )
        return pb.DecideWebhookResponse()

    async def ReplayWebhook(self, request: pb.ReplayWebhookRequest, context: Any) -> pb.ReplayWebhookResponse:
        """Have what ended sent again."""
        check_request(request)
        check_said("actor", request.actor)
        check_said("reason", request.reason)
        if not request.HasField("since"):
            raise InvalidArgument("SINCE_INVALID", "Say since when events are to be sent again.")
        since = _moment(request.since)
        self._destination(request.webhook)
        events = await deliveries.replay(self._database, request.webhook, since, request.key)
        _log.info(
            REPLAYED,
            webhook=request.webhook,
            since=since.isoformat(),
            key=request.key,
            events=events,
            actor=request.actor,
            reason=request.reason,
        )
        return pb.ReplayWebhookResponse(events=events)


def _test(event_id: UUID, webhook: str) -> bytes:
    event = {
        "specversion": "1.0",
        "id": str(event_id),
        "source": SOURCE,
        "type": TEST,
        "subject": webhook,
        "time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
    }
    return json.dumps(event, separators=(",", ":"), sort_keys=True).encode()


def _parked(row: Any) -> pb.ParkedWebhook:
    shown = pb.ParkedWebhook(
        webhook=row["webhook"],
        event_id=str(row["event_id"]),
        key=row["key"],
        type=row["type"],
        attempts=row["attempts"],
        detail=row["detail"],
        behind=row["behind"],
    )
    shown.occurred_at.FromDatetime(row["occurred_at"])
    shown.parked_at.FromDatetime(row["parked_at"])
    return shown


def _event_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidArgument("EVENT_ID_INVALID", f"{text!r} is no event's id.") from None


def _moment(given: Timestamp) -> datetime:
    try:
        return given.ToDatetime(UTC)
    except ValueError:
        raise InvalidArgument("SINCE_INVALID", "since is no moment that a calendar has.") from None
