"""What is counted about messages. Made and told by `sender`."""

from datetime import timedelta

from prometheus_client import CollectorRegistry, Counter, Gauge

from shop_notifications.domain import MailTemplate, NotificationState


class MessageMetrics:
    """The metrics of messages in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the metrics; a registry takes them once."""
        self._states = Counter(
            "notification", "Messages that came into a state in this process.", ("template", "state"), registry=registry
        )
        for template in MailTemplate:
            for state in NotificationState:
                self._states.labels(template, state)
        self._connections = Counter(
            "notification_smtp_connections", "Connections to the mail server.", ("result",), registry=registry
        )
        for result in ("made", "failed"):
            self._connections.labels(result)
        self._oldest = Gauge(
            "notification_oldest_seconds",
            "How old the oldest event is whose message should have been sent.",
            registry=registry,
        )

    def came_into(self, template: MailTemplate, state: NotificationState) -> None:
        """Count a message that came into a state."""
        self._states.labels(template, state).inc()

    def connection(self, made: bool) -> None:
        """Count an attempt to reach the mail server."""
        self._connections.labels("made" if made else "failed").inc()

    def oldest(self, age: timedelta) -> None:
        """Note for how long what should have been sent has been waiting."""
        self._oldest.set(age.total_seconds())
