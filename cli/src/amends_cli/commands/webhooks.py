"""`amends webhooks`: what an orchestrator sends to webhooks, what waits, and what a person decides about it."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from amends_cli import connection, options, output
from amends_cli.connection import CALL_TIMEOUT
from amends_cli.durations import age_in_words, moment
from amends_cli.failure import Exit, usage
from amends_cli.options import NamedArguments
from amends_cli.output import Column, Listing, field
from amends_cli.resources import plain

webhooks = typer.Typer(help="See and mend what webhooks are sent.", invoke_without_command=True)

WebhookName = Annotated[str, typer.Argument(metavar="WEBHOOK", help="The name, as `amends webhooks list` shows it.")]
ParkedName = Annotated[str, typer.Argument(metavar="NAME", help="WEBHOOK/EVENT, as `amends webhooks parked` shows it.")]
WhyOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept with the event.")]
FOR_A_TEST = 2 * CALL_TIMEOUT
"""A look-up and an answer may take as long as the orchestrator allows each."""


def _list(name: str) -> Any:
    return lambda row: " ".join(row.get(name, [])) or "all"


def _age(name: str) -> Any:
    return lambda row: age_in_words(datetime.now(UTC) - datetime.fromisoformat(row[name])) if name in row else "-"


def _number(name: str) -> Any:
    return lambda row: str(row.get(name, 0))


WEBHOOKS = [
    Column("NAME", field("name")),
    Column("ORIGIN", lambda row: row.get("origin", "-")),
    Column("DUE", _number("due")),
    Column("PARKED", _number("parked")),
    Column("OLDEST", _age("oldestDue")),
    Column("TYPES", _list("types")),
    Column("NAMESPACES", _list("namespaces")),
    Column("SAGAS", _list("sagas"), wide=True),
    Column("SETTINGS", lambda row: "named" if row.get("configured") else "not named any more"),
]
PARKED = [
    Column("NAME", field("name")),
    Column("KEY", field("key")),
    Column("TYPE", lambda row: str(row.get("type", "")).rpartition(".")[2]),
    Column("AGE", _age("occurredAt")),
    Column("ATTEMPTS", _number("attempts")),
    Column("BEHIND", _number("behind")),
    Column("DETAIL", field("detail"), cut=True),
    Column("PARKED", field("parkedAt"), wide=True),
]


@webhooks.callback()
def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        output.lines(context.get_help())
        raise typer.Exit(Exit.USAGE)


@webhooks.command("list", cls=NamedArguments)
def list_webhooks(form: output.NamedOutput = Listing.TABLE, address: connection.AddressOption = None) -> None:
    """List webhooks, and how many events wait for each."""
    from amends.events.v1 import webhooks_pb2 as pb

    with connection.connect(address) as server:
        answer = server.webhooks.ListWebhooks(pb.ListWebhooksRequest(), timeout=CALL_TIMEOUT.total_seconds())
    output.emit_named([plain(one) for one in answer.webhooks], WEBHOOKS, form, empty="there are no webhooks")


@webhooks.command("test", cls=NamedArguments)
def send_test(webhook: WebhookName, address: connection.AddressOption = None) -> None:
    """Send a test to a webhook, now and once.

    Exit code 1 when it was not delivered.
    """
    from amends.events.v1 import webhooks_pb2 as pb

    request = pb.TestWebhookRequest(webhook=webhook)
    with connection.connect(address) as server:
        answer = server.webhooks.TestWebhook(request, timeout=FOR_A_TEST.total_seconds())
    output.line(f"{webhook}: {answer.detail}")
    if not answer.delivered:
        raise typer.Exit(Exit.FAILED)


@webhooks.command("parked", cls=NamedArguments)
def parked(
    webhook: Annotated[str, typer.Option("--webhook", metavar="NAME", help="Only of this webhook.")] = "",
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=1000, help="At most this many.")] = 100,
    form: output.NamedOutput = Listing.TABLE,
    address: connection.AddressOption = None,
) -> None:
    """List events that a webhook did not take, and that wait for a decision."""
    from amends.events.v1 import webhooks_pb2 as pb

    request = pb.ListParkedWebhooksRequest(webhook=webhook, limit=limit)
    with connection.connect(address) as server:
        answer = server.webhooks.ListParkedWebhooks(request, timeout=CALL_TIMEOUT.total_seconds())
    rows = [{"name": f"{one.webhook}/{one.event_id}", **plain(one)} for one in answer.parked]
    output.emit_named(rows, PARKED, form, empty="nothing is parked")


@webhooks.command("retry", cls=NamedArguments)
def retry(
    name: ParkedName, reason: WhyOption, actor: options.Actor = "", address: connection.AddressOption = None
) -> None:
    """Have a parked event sent again.

    Those of its run that wait behind it follow.
    """
    _decide("RETRY", name, reason, actor, address)
    output.line(f"{name} is sent again")


@webhooks.command("skip", cls=NamedArguments)
def skip(
    name: ParkedName, reason: WhyOption, actor: options.Actor = "", address: connection.AddressOption = None
) -> None:
    """Leave a parked event out.

    Those of its run that wait behind it follow.
    """
    _decide("SKIP", name, reason, actor, address)
    output.line(f"{name} is left out")


@webhooks.command("replay", cls=NamedArguments)
def replay(
    webhook: WebhookName,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="What occurred since: 2h (ago) or 2026-01-31T10:00:00Z.")
    ],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; the orchestrator logs it.")],
    key: Annotated[str, typer.Option("--key", metavar="RUN", help="Only of this run or definition.")] = "",
    actor: options.Actor = "",
    address: connection.AddressOption = None,
) -> None:
    """Send a webhook again what it was sent before.

    Events keep their ids, so it can tell what it has seen.
    """
    from amends.events.v1 import webhooks_pb2 as pb

    request = pb.ReplayWebhookRequest(webhook=webhook, key=key, reason=reason, actor=actor or options.me())
    request.since.FromDatetime(moment("--since", since))
    with connection.connect(address) as server:
        answer = server.webhooks.ReplayWebhook(request, timeout=CALL_TIMEOUT.total_seconds())
    output.line(f"{webhook} is sent {answer.events} events again")


def _decide(decision: str, name: str, reason: str, actor: str, address: str | None) -> None:
    from amends.events.v1 import webhooks_pb2 as pb

    webhook, slash, event_id = name.partition("/")
    if not slash:
        raise usage(f"`{name}` is no parked event", "Write it as WEBHOOK/EVENT, as `amends webhooks parked` shows it.")
    request = pb.DecideWebhookRequest(
        webhook=webhook,
        event_id=event_id,
        decision=pb.WebhookDecision.Value(f"WEBHOOK_DECISION_{decision}"),
        reason=reason,
        actor=actor or options.me(),
    )
    with connection.connect(address) as server:
        server.webhooks.DecideWebhook(request, timeout=CALL_TIMEOUT.total_seconds())
