"""`amends events`: what services publish and consume, for who is on call, and the decisions that a person can make.

Everything is asked of the services themselves (amends.events.v1.EventsService), but `ensure`, which speaks to a broker.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amends_cli import descriptors, event_decisions, event_tables, options, output, topics_made
from amends_cli.durations import duration, moment
from amends_cli.event_services import AddressesOption, AskedService, ServicesOption, ask_all, ask_first, asked
from amends_cli.failure import CliError, Exit, usage
from amends_cli.options import NamedArguments
from amends_cli.output import Format, Listing
from amends_cli.resources import plain

if TYPE_CHECKING:
    from amends.events.v1 import events_service_pb2 as pb

MOST = 1000
"""The largest page of a service."""

events = typer.Typer(help="See and mend what services publish and consume.", invoke_without_command=True)
parked = typer.Typer(help="Events that wait for a person, and what to do with them.", invoke_without_command=True)
outbox = typer.Typer(help="Events that the broker does not have yet.", invoke_without_command=True)
events.add_typer(parked, name="parked")
events.add_typer(outbox, name="outbox")

DecisionReason = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the service's database for ever.")
]
ReasonUnlessDry = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why; kept for ever. Needed but with --dry-run.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
KeyOption = Annotated[str, typer.Option("--key", metavar="KEY", help="Only of this key.")]
TopicOption = Annotated[str, typer.Option("--topic", metavar="TOPIC", help="Only of this topic.")]
ConsumerOption = Annotated[str, typer.Option("--consumer", metavar="NAME", help="Only of this consumer.")]
LimitOption = Annotated[int, typer.Option("--limit", metavar="N", min=1, max=100_000, help="At most this many.")]
NamesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="NAME...", help="Names, as `parked list` shows them.")
]
EveryOption = Annotated[
    bool, typer.Option("--all", help="All that can be decided, with --consumer, --topic and --key.")
]
WaitOption = Annotated[
    timedelta,
    typer.Option("--wait", metavar="DURATION", parser=duration, show_default="30s", help="How long to wait for it."),
]


@events.callback()
@parked.callback()
def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        output.lines(context.get_help())
        raise typer.Exit(Exit.USAGE)


@events.command("topics", cls=NamedArguments)
def topics(
    form: output.Output = Format.TABLE, services: ServicesOption = None, addresses: AddressesOption = None
) -> None:
    """List topics: partitions, events, what waits."""
    from amends.events.v1 import events_service_pb2 as pb

    with _rows(event_tables.TOPICS, form, "no topics") as rows, asked(addresses, services) as known:
        for service, answer in ask_all(known, "ListTopics", pb.ListTopicsRequest()):
            rows += _of(service, answer.topics)


@events.command("lag", cls=NamedArguments)
def lag(
    consumer: ConsumerOption = "",
    topic: TopicOption = "",
    partitions: Annotated[bool, typer.Option("--partitions", help="A line for each partition.")] = False,
    form: output.Output = Format.TABLE,
    services: ServicesOption = None,
    addresses: AddressesOption = None,
) -> None:
    """Show how far behind consumers are.

    Exit code 1 when a position is lost: such a consumer stands still until a person moves it (`amends events replay`).
    """
    from amends.events.v1 import events_service_pb2 as pb

    columns = event_tables.LAG if partitions else event_tables.LAG_SUMMARY
    with _rows(columns, form, "no consumers") as rows, asked(addresses, services) as known:
        request = pb.ListLagRequest(consumer=consumer, topic=topic)
        for service, answer in ask_all(known, "ListLag", request):
            found = _of(service, answer.partitions)
            rows += found if partitions or form in (Format.JSON, Format.YAML) else event_tables.summary(found)
    if any("POSITION_LOST" in str(row.get("state")) for row in rows):
        raise typer.Exit(Exit.FAILED)


@parked.command("list", cls=NamedArguments)
def list_parked(
    consumer: ConsumerOption = "",
    topic: TopicOption = "",
    key: KeyOption = "",
    decidable: Annotated[
        bool, typer.Option("--decidable", help="Only the first of each key: those that can be decided.")
    ] = False,
    limit: LimitOption = 100,
    form: output.NamedOutput = Listing.TABLE,
    services: ServicesOption = None,
    addresses: AddressesOption = None,
) -> None:
    """List events that wait for a decision."""
    from amends.events.v1 import events_service_pb2 as pb

    request = pb.ListParkedRequest(consumer=consumer, topic=topic, key=key, decidable=decidable)
    with _rows(event_tables.PARKED, form, "nothing is parked") as rows, asked(addresses, services) as known:
        for service, event in _pages(known, "ListParked", request, limit):
            rows += _of(service, [event])


@parked.command("show", cls=NamedArguments)
def show_parked(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name, as `parked list` shows it.")],
    form: output.Output = Format.TABLE,
    services: ServicesOption = None,
    addresses: AddressesOption = None,
) -> None:
    """Show one parked event, its payload, and why."""
    with asked(addresses, services) as known:
        _, answer = event_decisions.get(known, name)
    if not output.emit(plain(answer), form):
        event_tables.show_parked(answer)


@parked.command("retry", cls=NamedArguments)
def retry_parked(
    reason: DecisionReason,
    names: NamesArgument = None,
    every: EveryOption = False,
    consumer: ConsumerOption = "",
    topic: TopicOption = "",
    key: KeyOption = "",
    wait: WaitOption = timedelta(seconds=30),
    actor: options.Actor = "",
    services: ServicesOption = None,
    addresses: AddressesOption = None,
) -> None:
    """Have parked events handled again, in order.

    Those behind them follow. Exit code 5 when one is parked again, 6 when it is not known within --wait.
    """
    _decide("RETRY", names or [], (every, consumer, topic, key), (reason, actor), wait, (addresses, services))


@parked.command("skip", cls=NamedArguments)
def skip_parked(
    reason: DecisionReason,
    names: NamesArgument = None,
    every: EveryOption = False,
    consumer: ConsumerOption = "",
    topic: TopicOption = "",
    key: KeyOption = "",
    wait: WaitOption = timedelta(seconds=30),
    actor: options.Actor = "",
    services: ServicesOption = None,
    addresses: AddressesOption = None,
) -> None:
    """Leave parked events out for good.

    Those behind them follow, and are handled. Exit code 5 when one of those is parked, 6 when it is not known in time.
    """
    _decide("SKIP", names or [], (every, consumer, topic, key), (reason, actor), wait, (addresses, services))


def _decide(
    decision: str,
    names: Sequence[str],
    which: tuple[bool, str, str, str],
    said: tuple[str, str],
    wait: timedelta,
    where: tuple[list[str] | None, list[str] | None],
) -> None:
    from amends.events.v1 import events_service_pb2 as pb

    every, consumer, topic, key = which
    if bool(names) == every:
        raise usage("which events?", "Give names from `amends events parked list`, or --all.")
    reason, actor = said
    request = pb.DecideParkedRequest(
        decision=pb.ParkedDecision.Value(f"PARKED_DECISION_{decision}"), reason=reason, actor=actor or options.me()
    )
    with asked(*where) as known:
        if every:
            listed = pb.ListParkedRequest(consumer=consumer, topic=topic, key=key, decidable=True)
            found = [(service, event.name) for service, event in _pages(known, "ListParked", listed, 100_000)]
        else:
            found = [(event_decisions.get(known, name)[0], name) for name in names]
        if not found:
            output.say("nothing is parked")
            return
        code = event_decisions.decide_all(found, request, wait)
    if code is not Exit.OK:
        raise typer.Exit(code)


@events.command("replay", cls=NamedArguments)
def replay(
    consumer: Annotated[str, typer.Argument(metavar="CONSUMER", help="The name, as `amends events lag` shows it.")],
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="TIME|POSITION",
            help="Where it goes on: 2h (ago), 2026-01-31T10:00:00Z, a position, or `beginning`.",
        ),
    ],
    topic: Annotated[
        str, typer.Option("--topic", metavar="TOPIC", help="The topic; left out: the only one that it reads.")
    ] = "",
    key: Annotated[str, typer.Option("--key", metavar="KEY", help="Only the partition of this key.")] = "",
    partition: Annotated[
        int | None, typer.Option("--partition", metavar="N", min=0, max=63, help="Only this partition.")
    ] = None,
    dry_run: DryRunOption = False,
    force: Annotated[
        bool, typer.Option("--force", help="Handle again what was handled; refused where that would do harm.")
    ] = False,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Go on without what the log does not have any more.")
    ] = False,
    reason: ReasonUnlessDry = "",
    actor: options.Actor = "",
    form: output.Output = Format.TABLE,
    services: ServicesOption = None,
    addresses: AddressesOption = None,
) -> None:
    """Move a consumer in the log, to go on from there.

    What it has handled it does not handle again, so a replay has no second effect. --dry-run says what would be read.
    """
    from amends.events.v1 import events_service_pb2 as pb

    request = pb.ReplayRequest(
        consumer=consumer, topic=topic, key=key, dry_run=dry_run, force=force, accept_loss=accept_loss
    )
    _start(request, start)
    if partition is not None:
        request.partition = partition
    _said(request, dry_run, reason, actor)
    with asked(addresses, services) as known:
        if not topic:
            request.topic = _only_topic(known, consumer)
        _, answer = ask_first(
            known, lambda service: service.ask("Replay", request), ("CONSUMER_UNKNOWN", "NOT_REPEATABLE")
        )
    if not output.emit(plain(answer), form):
        event_tables.show_replay(request, answer)


def _only_topic(known: Sequence[AskedService], consumer: str) -> str:
    from amends.events.v1 import events_service_pb2 as pb

    request = pb.ListLagRequest(consumer=consumer)
    found = {one.topic for _, answer in ask_all(known, "ListLag", request) for one in answer.partitions}
    if not found:
        raise CliError(f"no consumer is called {consumer}", "`amends events lag` shows the consumers.")
    if len(found) > 1:
        raise usage(f"{consumer} reads several topics", f"Name one with --topic: {', '.join(sorted(found))}.")
    return str(found.pop())


def _start(request: "pb.ReplayRequest", text: str) -> None:
    """Write where a replay begins into its request. Raises CliError (wrong use)."""
    if text == "beginning":
        request.position = 1
    elif text.isdecimal() and text.isascii() and len(text) < 19:
        request.position = int(text)
    else:
        request.since.FromDatetime(moment("--from", text))


def _said(request: Any, dry_run: bool, reason: str, actor: str) -> None:
    """Write who decides and why into a request that is carried out. Raises CliError (wrong use)."""
    if dry_run:
        return
    if not reason.strip():
        raise usage("why? Who reads it later wants to know", "Give --reason TEXT, or --dry-run to only look.")
    request.reason, request.actor = reason, actor or options.me()


@outbox.callback()
def list_outbox(
    context: typer.Context,
    topic: TopicOption = "",
    limit: LimitOption = 100,
    form: output.Output = Format.TABLE,
    services: ServicesOption = None,
    addresses: AddressesOption = None,
) -> None:
    """List events that the broker does not have yet, oldest first; `amends events outbox skip` leaves one out."""
    if context.invoked_subcommand is not None:
        return
    from amends.events.v1 import events_service_pb2 as pb

    with _rows(event_tables.OUTBOX, form, "nothing waits") as rows, asked(addresses, services) as known:
        for service, event in _pages(known, "ListOutbox", pb.ListOutboxRequest(topic=topic), limit):
            rows += _of(service, [event])


@outbox.command("skip", cls=NamedArguments)
def skip_outbox(
    event_id: Annotated[str, typer.Argument(metavar="EVENT", help="The id, as `amends events outbox` shows it.")],
    reason: DecisionReason,
    actor: options.Actor = "",
    form: output.Output = Format.TABLE,
    services: ServicesOption = None,
    addresses: AddressesOption = None,
) -> None:
    """Tell nobody of an event that no broker takes.

    It is kept with the decision. Everything of its partition waits behind it, so a broker that is away is no reason.
    """
    from amends.events.v1 import events_service_pb2 as pb

    request = pb.SkipOutboxRequest(event_id=event_id, reason=reason, actor=actor or options.me())
    with asked(addresses, services) as known:
        service, answer = ask_first(
            known, lambda service: service.ask("SkipOutbox", request), ("OUTBOX_EVENT_UNKNOWN",)
        )
    if not output.emit(plain(answer), form):
        event = answer.event
        output.line(f"{service.name} will not publish {event.type} of {event.key} (version {event.version})")


@events.command("republish", cls=NamedArguments)
def republish(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic, as `amends events topics` shows it.")],
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="What occurred since: 2h (ago) or 2026-01-31T10:00:00Z.")
    ],
    key: KeyOption = "",
    dry_run: DryRunOption = False,
    reason: ReasonUnlessDry = "",
    actor: options.Actor = "",
    form: output.Output = Format.TABLE,
    services: ServicesOption = None,
    addresses: AddressesOption = None,
) -> None:
    """Publish again what a broker has lost.

    Events keep their ids, so consumers drop what they know. Do it before `amends events ensure` makes the topic anew:
    then they come before everything that waits.
    """
    from amends.events.v1 import events_service_pb2 as pb

    request = pb.RepublishRequest(topic=topic, key=key, dry_run=dry_run)
    request.since.FromDatetime(moment("--since", since))
    _said(request, dry_run, reason, actor)
    with asked(addresses, services) as known:
        service, answer = ask_first(known, lambda service: service.ask("Republish", request), ("TOPIC_UNKNOWN",))
    if not output.emit(plain(answer), form):
        verb = "publishes" if answer.done else "would publish"
        between = event_tables.between(answer.first_at, answer.last_at) if answer.events else ""
        output.line(f"{service.name} {verb} {answer.events} events again{between}")


@events.command("decisions", cls=NamedArguments)
def decisions(
    limit: LimitOption = 100,
    form: output.Output = Format.TABLE,
    services: ServicesOption = None,
    addresses: AddressesOption = None,
) -> None:
    """List who decided what about events, and why."""
    from amends.events.v1 import events_service_pb2 as pb

    with _rows(event_tables.DECISIONS, form, "nothing was decided") as rows, asked(addresses, services) as known:
        for service, decision in _pages(known, "ListDecisions", pb.ListDecisionsRequest(), limit):
            rows += _of(service, [decision])


@events.command("ensure", cls=NamedArguments)
def ensure(
    broker: Annotated[
        str,
        typer.Option("--broker", metavar="URL", envvar="AMENDS_BROKER", help="nats://HOST:PORT or kafka://HOST:PORT."),
    ],
    names: Annotated[list[str] | None, typer.Argument(metavar="TOPIC...", help="Only these; left out: all.")] = None,
    descriptor_files: descriptors.DescriptorsOption = None,
    protos: descriptors.Protos = None,
    retention: Annotated[
        timedelta,
        typer.Option(
            "--retention", metavar="DURATION", parser=duration, show_default="7d", help="How long they keep events."
        ),
    ] = timedelta(days=7),
    dry_run: DryRunOption = False,
    form: output.Output = Format.TABLE,
    services: ServicesOption = None,
    addresses: AddressesOption = None,
) -> None:
    """Make the topics of contracts on a broker.

    The contracts are given with --protos or --descriptors, or asked of the services. A topic that is there with another
    number of partitions is refused: keys would move to other partitions, and overtake themselves.
    """
    contracts = descriptors.load(descriptor_files, protos)
    if contracts is not None:
        wanted = topics_made.declared(contracts)
    else:
        from amends.events.v1 import events_service_pb2 as pb

        with asked(addresses, services) as known:
            answers = ask_all(known, "ListTopics", pb.ListTopicsRequest())
            wanted = {one.name: one.partitions for _, answer in answers for one in answer.topics}
    rows = topics_made.make(broker, topics_made.only(wanted, names or []), retention, dry_run=dry_run)
    output.emit_rows(rows, event_tables.MADE, form, empty="no topics")


@contextmanager
def _rows(columns: Sequence[output.Column], form: Format | Listing, empty: str) -> Iterator[list[output.OutputRow]]:
    """Collect rows in a block and print them at its end, also when one of the services did not answer."""
    rows: list[output.OutputRow] = []
    try:
        yield rows
    except CliError:
        if rows:
            output.emit_named(rows, columns, form, empty=empty)
        raise
    output.emit_named(rows, columns, form, empty=empty)


def _of(service: AskedService, messages: Sequence[Any]) -> list[dict[str, Any]]:
    """Return messages as canonical protobuf JSON, each with the service that said it."""
    return [{"service": service.name, **plain(message)} for message in messages]


def _pages(known: Sequence[AskedService], method: str, request: Any, limit: int) -> Iterator[tuple[AskedService, Any]]:
    """Yield what each service lists, page by page, at most `limit` of each."""
    for service, answer in ask_all(known, method, _sized(request, limit, "")):
        left = limit
        while True:
            found = list(getattr(answer, "events" if hasattr(answer, "events") else "decisions"))[:left]
            yield from ((service, one) for one in found)
            left -= len(found)
            if not answer.next_page_token or left <= 0:
                break
            answer = service.ask(method, _sized(request, left, answer.next_page_token))


def _sized(request: Any, limit: int, token: str) -> Any:
    sized = type(request)()
    sized.CopyFrom(request)
    sized.page_size, sized.page_token = min(limit, MOST), token
    return sized
