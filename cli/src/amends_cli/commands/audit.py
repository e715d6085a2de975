"""`amends audit`: proves from databases and logs that every run and every event kept what was promised, or names it."""

import asyncio
from datetime import timedelta
from typing import Annotated

import typer

from amends_cli import audit_told, output
from amends_cli.audit_given import AuditedDatabases, by_name, by_service, left_by_up
from amends_cli.durations import duration
from amends_cli.failure import CliError, Exit
from amends_cli.output import Format

OrchestratorUrl = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        envvar="AMENDS_DATABASE_URL",
        help="The orchestrator's database; otherwise what `make up` left in .amends.",
    ),
]
ParticipantUrls = Annotated[
    list[str] | None,
    typer.Option(
        "--participant",
        metavar="SERVICE=URL",
        envvar="AMENDS_PARTICIPANTS",
        help="The database of a guarded service, by its protobuf name; give it once for each.",
    ),
]
ServiceUrls = Annotated[
    list[str] | None,
    typer.Option(
        "--service",
        metavar="NAME=URL",
        envvar="AMENDS_SERVICE_DATABASES",
        help="The database of a service that publishes or consumes events and is no participant.",
    ),
]
ExportAddresses = Annotated[
    list[str] | None,
    typer.Option(
        "--export",
        metavar="HOST:PORT",
        envvar="AMENDS_EXPORTS",
        help="A service that exports what it keeps: each change has to have its event. May be repeated.",
    ),
]


def audit(
    database: OrchestratorUrl = None,
    participants: ParticipantUrls = None,
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
    services: ServiceUrls = None,
    broker: Annotated[
        str,
        typer.Option(
            "--broker",
            metavar="URL",
            envvar="AMENDS_BROKER",
            help="The broker of the events: nats://HOST:PORT or kafka://HOST:PORT.",
        ),
    ] = "",
    exports: ExportAddresses = None,
    form: output.Output = Format.TABLE,
) -> None:
    """Prove that all runs and events kept what was promised.

    Checks the invariants over the databases of a running installation and the log of its broker, and names each run and
    each event that breaks one.
    """
    from amends_cli import audit_databases, audit_events, audit_exports  # drivers that no other command needs

    found = AuditedDatabases(database, by_service(participants or ()), by_name(services or ()), broker)
    asked = audit_exports.Exports(exports or ())
    if not database:
        found = left_by_up(found)
        asked = audit_exports.Exports(exports or (), () if exports else found.addresses)
    assert found.orchestrator is not None
    wanted = audit_databases.AuditRequest(found.orchestrator, found.participants, since, lease, strangers)
    try:
        report = asyncio.run(audit_databases.audit(wanted))
        events = asyncio.run(audit_events.audit_events(found.by_name, found.broker, asked))
    except audit_databases.UnreadableError as error:
        raise CliError(str(error)) from None
    audit_told.show(report, events, form)
    if report.found or events.found:
        raise typer.Exit(Exit.FAILED)
