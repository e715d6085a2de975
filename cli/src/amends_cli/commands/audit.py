"""`amends audit`: proves from databases and logs that every run and every event kept what was promised, or names it."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from amends_cli import audit_told, output
from amends_cli.durations import duration
from amends_cli.failure import CliError, Exit, usage
from amends_cli.output import Column, Format, field

LEFT_BY_UP = Path(".amends") / "state.json"
COLUMNS = [
    Column("BROKEN", field("invariant")),
    Column("RUN", field("runId")),
    Column("NAMESPACE", field("namespace"), wide=True),
    Column("SAGA", field("saga"), wide=True),
    Column("KEY", field("key")),
    Column("STEP", field("step")),
    Column("WHAT", field("message")),
]


def audit(
    database: Annotated[
        str | None,
        typer.Option(
            "--database",
            metavar="URL",
            envvar="AMENDS_DATABASE_URL",
            help="The orchestrator's database; otherwise what `make up` left in .amends.",
        ),
    ] = None,
    participants: Annotated[
        list[str] | None,
        typer.Option(
            "--participant",
            metavar="SERVICE=URL",
            envvar="AMENDS_PARTICIPANTS",
            help="The database of a guarded service, by its protobuf name; give it once for each.",
        ),
    ] = None,
    since: Annotated[
        timedelta | None,
        typer.Option(
            "--since", metavar="DURATION", parser=duration, help="Only runs started since, e.g. 24h; default: all."
        ),
    ] = None,
    lease: Annotated[
        timedelta,
        typer.Option(
            "--lease",
            metavar="DURATION",
            parser=duration,
            show_default="10s",
            help="How long an orchestrator may be silent, as it is set there.",
        ),
    ] = timedelta(seconds=10),
    strangers: Annotated[
        bool, typer.Option("--strangers", help="The services serve other orchestrators too: allow effects without run.")
    ] = False,
    services: Annotated[
        list[str] | None,
        typer.Option(
            "--service",
            metavar="NAME=URL",
            envvar="AMENDS_SERVICE_DATABASES",
            help="The database of a service that publishes or consumes events and is no participant.",
        ),
    ] = None,
    broker: Annotated[
        str,
        typer.Option(
            "--broker",
            metavar="URL",
            envvar="AMENDS_BROKER",
            help="The broker of the events: nats://HOST:PORT or kafka://HOST:PORT.",
        ),
    ] = "",
    exports: Annotated[
        list[str] | None,
        typer.Option(
            "--export",
            metavar="HOST:PORT",
            envvar="AMENDS_EXPORTS",
            help="A service that exports what it keeps: each change has to have its event. May be repeated.",
        ),
    ] = None,
    form: output.Output = Format.TABLE,
) -> None:
    """Prove that every run and every event kept what was promised.

    Checks the invariants over the databases of a running installation and the log of its broker, and names each run and
    each event that breaks one.
    """
    from amends_cli import audit_databases, audit_events, audit_exports  # drivers that no other command needs

    found = _Databases(database, _pairs(participants or ()), _named(services or ()), broker)
    asked = audit_exports.Exports(exports or ())
    if not database:
        found = _left_by_up(found)
        asked = audit_exports.Exports(exports or (), () if exports else found.addresses)
    assert found.orchestrator is not None
    wanted = audit_databases.AuditRequest(found.orchestrator, found.participants, since, lease, strangers)
    try:
        report = asyncio.run(audit_databases.audit(wanted))
        events = asyncio.run(audit_events.audit_events(found.by_name, found.broker, asked))
    except audit_databases.UnreadableError as error:
        raise CliError(str(error)) from None
    _show(report, events, form)
    if report.found or events.found:
        raise typer.Exit(Exit.FAILED)


@dataclass(frozen=True, slots=True)
class _Databases:
    """The databases of an installation, and its broker."""

    orchestrator: str | None
    participants: dict[str, str]
    """By protobuf service."""
    others: dict[str, str]
    broker: str
    addresses: Sequence[str] = ()
    """Of services that may export what they keep."""

    @property
    def by_name(self) -> dict[str, str]:
        """Return all of them, each once."""
        named = {"the orchestrator": self.orchestrator or "", **self.participants, **self.others}
        return {name: url for url, name in {url: name for name, url in reversed(named.items())}.items() if url}


def _show(report: Any, events: Any, form: Format) -> None:
    rows = [
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
    summary = {
        "runs": report.runs,
        "states": dict(sorted(report.states.items())),
        "records": report.records,
        "resolvedByPerson": report.by_person,
        "stepsNotCompared": dict(sorted(report.unread.items())),
        "runsOfNewerVersion": report.newer,
        "runsPastRetention": report.past,
        "findings": rows,
        "events": audit_told.summary(events),
    }
    if output.emit(summary, form):
        return
    if rows:
        output.emit_rows(rows, COLUMNS, form, empty="")
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
    if rows:
        broken = len({named.finding.run_id or named.key for named in report.found})
        output.line(f"{broken} of them break an invariant")
    audit_told.tell(events, form)
    if events.found:
        output.line(f"{len(events.found) + sum(events.more.values())} times a law of events is broken")
    elif not rows:
        output.line("every invariant holds" if report.runs or events.events else "nothing to check")


def _pairs(given: Sequence[str]) -> dict[str, str]:
    for text in given:
        service, _, url = text.partition("=")
        if "." not in service or "://" not in url:
            raise usage(f"--participant takes SERVICE=URL, not `{service}`", "e.g. shop.v1.Payments=postgresql://...")
    return dict(text.split("=", 1) for text in given)


def _named(given: Sequence[str]) -> dict[str, str]:
    for text in given:
        name, _, url = text.partition("=")
        if not name or "://" not in url:
            raise usage(f"--service takes NAME=URL, not `{name}`", "e.g. notifications=postgresql://...")
    return dict(text.split("=", 1) for text in given)


def _left_by_up(given: _Databases) -> _Databases:
    """Return the databases that `make up` wrote down; what was given by hand replaces those of the same name."""
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        path = folder / LEFT_BY_UP
        if path.is_file():
            break
    else:
        raise usage("no database was given", "Give --database and --participant, or run `make up` first.")
    processes = json.loads(path.read_text(encoding="utf-8"))["processes"]
    participants = {process["service"]: process["database"] for process in processes.values() if process.get("service")}
    others = {
        name: process["database"]
        for name, process in processes.items()
        if process["database"] and not process.get("service") and name != "postgres"
    }
    journals = [process["database"] for name, process in processes.items() if name.startswith("orchestrator")]
    if not journals:
        raise usage(f"{path} names no orchestrator", "Give --database and --participant.")
    address = processes.get("nats", {}).get("address")
    return _Databases(
        journals[0],
        participants | given.participants,
        others | given.others,
        given.broker or (f"nats://{address}" if address else ""),
        tuple(process["address"] for name, process in processes.items() if name in others or process.get("service")),
    )
