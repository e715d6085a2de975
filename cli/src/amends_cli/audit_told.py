"""The result of an audit, of runs and of events, for people and for programs. Called by `commands.audit`."""

from typing import TYPE_CHECKING, Any

from amends_cli import output
from amends_cli.output import Column, Format, field

if TYPE_CHECKING:
    from amends_cli.audit_databases import AuditReport
    from amends_cli.audit_events import EventReport

EVENT_COLUMNS = [
    Column("BROKEN", field("law")),
    Column("TOPIC", field("topic")),
    Column("KEY", field("key")),
    Column("CONSUMER", field("consumer")),
    Column("WHAT", field("message")),
]
RUN_COLUMNS = [
    Column("BROKEN", field("invariant")),
    Column("RUN", field("runId")),
    Column("NAMESPACE", field("namespace"), wide=True),
    Column("SAGA", field("saga"), wide=True),
    Column("KEY", field("key")),
    Column("STEP", field("step")),
    Column("WHAT", field("message")),
]


def show(report: "AuditReport", events: "EventReport", form: Format) -> None:
    """Print both reports."""
    rows = _run_rows(report)
    if output.emit(_runs_summary(report) | {"findings": rows, "events": events_summary(events)}, form):
        return
    if rows:
        output.emit_rows(rows, RUN_COLUMNS, form, empty="")
    _tell_runs(report)
    tell_events(events, form)
    if events.found:
        output.line(f"{len(events.found) + sum(events.more.values())} times a law of events is broken")
    elif not rows:
        output.line("every invariant holds" if report.runs or events.events else "nothing to check")


def _run_rows(report: "AuditReport") -> list[dict[str, Any]]:
    return [
        {
            "invariant": named.finding.invariant.value,
            "runId": named.finding.run_id,
            "namespace": named.namespace,
            "saga": named.saga,
            "key": named.key,
            "step": named.finding.step,
            "message": named.finding.message,
        }
        for named in report.found
    ]


def _runs_summary(report: "AuditReport") -> dict[str, Any]:
    return {
        "runs": report.runs,
        "states": dict(sorted(report.states.items())),
        "records": report.records,
        "resolvedByPerson": report.by_person,
        "stepsNotCompared": dict(sorted(report.unread.items())),
        "runsOfNewerVersion": report.newer,
        "runsPastRetention": report.past,
    }


def _tell_runs(report: "AuditReport") -> None:
    states = ", ".join(f"{count} {state}" for state, count in sorted(report.states.items()))
    output.line(f"{report.runs} runs ({states or 'none'}), {report.records} journal records")
    if report.by_person:
        output.line(f"{report.by_person} steps were decided by a person: excepted")
    for service, steps in sorted(report.unread.items()):
        output.line(f"{steps} steps of {service} were not compared: give --participant {service}=URL")
    if report.newer:
        output.line(f"{report.newer} runs of a newer version were not checked")
    if report.past:
        output.line(f"{report.past} runs are past their retention: their journal was dropped")
    if report.found:
        broken = len({named.finding.run_id or named.key for named in report.found})
        output.line(f"{broken} of them break an invariant")


def events_summary(report: "EventReport") -> dict[str, Any]:
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


def tell_events(report: "EventReport", form: Format) -> None:
    """Print a report: findings, what was checked, what waits, and what cannot be known."""
    if report.found:
        output.emit_rows(_rows(report), EVENT_COLUMNS, form, empty="")
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
