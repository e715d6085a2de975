"""The result of an audit of events, for people and for programs. Called by `commands.audit`."""

from typing import TYPE_CHECKING, Any

from amends_cli import output
from amends_cli.output import Column, Format, field

if TYPE_CHECKING:
    from amends_cli.audit_events import EventReport

COLUMNS = [
    Column("BROKEN", field("law")),
    Column("TOPIC", field("topic")),
    Column("KEY", field("key")),
    Column("CONSUMER", field("consumer")),
    Column("WHAT", field("message")),
]


def summary(report: "EventReport") -> dict[str, Any]:
    """Return a report as JSON."""
    return {
        "events": report.events,
        "topics": report.topics,
        "consumers": report.consumers,
        "handled": report.handled,
        "changesCompared": report.compared,
        "waiting": {
            name: {"events": one.events, "oldestSeconds": one.oldest.total_seconds()}
            for name, one in sorted(report.waiting.items())
        },
        "parked": {name: events for name, events in sorted(report.parked.items()) if events},
        "leftOutByPerson": report.left_out,
        "lag": {name: events for name, events in sorted(report.lag.items()) if events},
        "unknown": report.unknown,
        "findings": _rows(report),
        "findingsNotNamed": dict(sorted(report.more.items())),
    }


def _rows(report: "EventReport") -> list[dict[str, Any]]:
    return [
        {
            "law": one.law.value,
            "topic": one.topic,
            "key": one.key,
            "consumer": one.consumer,
            "message": one.message,
        }
        for one in report.found
    ]


def tell(report: "EventReport", form: Format) -> None:
    """Print a report: findings, what was checked, what waits, and what cannot be known."""
    if report.found:
        output.emit_rows(_rows(report), COLUMNS, form, empty="")
    for law, findings in sorted(report.more.items()):
        output.line(f"{findings} more break {law}")
    if report.events or report.consumers:
        checked = f"{report.handled} effects of {report.consumers} consumers"
        output.line(f"{report.events} events in {report.topics} topics, {checked}")
    if report.compared:
        output.line(f"{report.compared} changes that services keep were compared with the events that tell of them")
    for name, one in sorted(report.waiting.items()):
        output.line(
            f"{one.events} events of {name} wait for the broker, the oldest for {one.oldest.total_seconds():.0f} s"
        )
    for name, events in sorted(report.parked.items()):
        if events:
            output.line(f"{events} events of {name} are parked: `amends events parked list`")
    for name, events in sorted(report.lag.items()):
        if events:
            output.line(f"{events} events are still to be read by {name}")
    if report.left_out:
        output.line(f"{report.left_out} events were left out by a person: excepted")
    for sentence in report.unknown:
        output.line(f"not known: {sentence}")
