"""Which broker a URL means. Each client is loaded when it is chosen. For composition roots."""

from urllib.parse import urlsplit

from amends_events.broker import Broker


def open_broker(url: str) -> Broker:
    """Return the broker at nats://HOST:PORT or kafka://HOST:PORT[,HOST:PORT]; nothing is connected yet.

    Raises ValueError for any other URL.
    """
    scheme = urlsplit(url).scheme
    if scheme in ("nats", "tls"):
        from amends_events.nats import NatsBroker

        return NatsBroker(url)
    if scheme == "kafka":
        from amends_events.kafka import KafkaBroker

        return KafkaBroker(url.removeprefix("kafka://").rstrip("/"))
    raise ValueError(f"a broker is nats://HOST:PORT or kafka://HOST:PORT, not {scheme or url!r}")
