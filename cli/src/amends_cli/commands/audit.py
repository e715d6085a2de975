"""`amends audit`: proves from the databases that every run kept what was promised, or names those that did not."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from amends_cli import output
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
    form: output.Output = Format.TABLE,
) -> None:
    """Prove that every run kept what was promised.

    Checks the invariants over the databases of a running installation, and names each run that breaks one.
    """
    from amends_cli import audit_databases  # a database driver, which no other command needs

    url, services = (database, _pairs(participants or ())) if database else _left_by_up(participants or ())
    wanted = audit_databases.AuditRequest(url, services, since, lease, strangers)
    try:
        report = asyncio.run(audit_databases.audit(wanted))
    except audit_databases.UnreadableError as error:
        raise CliError(str(error)) from None
    _show(report, form)
    if report.found:
        raise typer.Exit(Exit.FAILED)


def _show(report: Any, form: Format) -> None:
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
    broken = len({named.finding.run_id or named.key for named in report.found})
    if not report.runs:
        output.line("nothing to check")
        return
    output.line(f"{broken} of them break an invariant" if rows else "every invariant holds")


def _pairs(given: Any) -> dict[str, str]:
    pairs = {}
    for text in given:
        service, equals, url = text.partition("=")
        if not equals or "." not in service or "://" not in url:
            raise usage(f"--participant takes SERVICE=URL, not `{service}`", "e.g. shop.v1.Payments=postgresql://...")
        pairs[service] = url
    return pairs


def _left_by_up(given: Any) -> tuple[str, dict[str, str]]:
    """Return the databases that `make up` wrote down; participants given by hand replace those of the same name."""
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        path = folder / LEFT_BY_UP
        if path.is_file():
            break
    else:
        raise usage("no database was given", "Give --database and --participant, or run `make up` first.")
    processes = json.loads(path.read_text(encoding="utf-8"))["processes"]
    found = {process["service"]: process["database"] for process in processes.values() if process.get("service")}
    journals = [process["database"] for name, process in processes.items() if name.startswith("orchestrator")]
    if not journals:
        raise usage(f"{path} names no orchestrator", "Give --database and --participant.")
    return journals[0], found | _pairs(given)
