"""The command line `amends`, also `kubectl amends`: puts the commands together and shows failures.

Called by the console scripts. A check of one file must be quick, and typer works on every parameter of every command
that it is given: so it is given only the command that was asked for, unless somebody wants help or completion.
"""

import contextlib
import os
import re
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from amends_cli import cluster, output
from amends_cli.connection import VARIABLE
from amends_cli.failure import CliError, Exit, usage
from amends_cli.monitor import VARIABLE as MONITOR
from amends_cli.options import NamedArguments

COMMANDS = {
    "check": ("check", "check"),
    "apply": ("apply", "apply"),
    "diff": ("diff", "diff"),
    "delete": ("delete", "delete"),
    "get": ("show", "get"),
    "list": ("show", "list_"),
    "start": ("runs", "start"),
    "watch": ("runs", "watch"),
    "resolve": ("runs", "resolve"),
    "cancel": ("runs", "cancel"),
    "audit": ("audit", "audit"),
    "explore": ("explore", "explore"),
    "probe": ("probe", "probe"),
    "flows": ("flows", "flows"),
    "events": ("events", "events"),
    "webhooks": ("webhooks", "webhooks"),
    "dev": ("dev", "dev"),
}
"""Module in `amends_cli.commands` and function of each command, or its group of commands."""

EXAMPLES = {
    "check": ("amends check saga.yaml participants.yaml --protos protos", "amends check . --strict -o sarif"),
    "apply": (
        "amends apply participants.yaml saga.yaml",
        "amends apply saga.yaml --descriptors set.binpb -n shop",
    ),
    "diff": ("amends diff saga.yaml", "amends diff definitions -n shop -o json"),
    "delete": ("amends delete saga/book-trip", "amends delete participant hotel -n shop"),
    "get": ("amends get 01a206d5", "amends get saga/book-trip -o yaml"),
    "list": ("amends list --state parked -n shop", "amends list sagas -o wide"),
    "start": (
        """amends start book-trip --key t-1 --input '{"tripId": "t-1"}' --watch""",
        "amends start book-trip --key t-1 --input @trip.json --wait --timeout 30s",
    ),
    "watch": ("amends watch 01a206d5", "amends watch 01a206d5 --until-parked -o json"),
    "resolve": (
        "amends resolve 01a206d5 retry --reason 'the hotel is back'",
        "amends resolve 01a206d5 skip --effect happened --reason 'the hotel has it'",
    ),
    "cancel": (
        "amends cancel 01a206d5 --reason 'the customer called'",
        "amends cancel 01a206d5 --reason x --actor ada",
    ),
    "audit": ("amends audit --since 24h", "amends audit --database URL --participant shop.v1.Payments=URL"),
    "explore": ("amends explore saga.yaml", "amends explore saga.yaml participants.yaml --protos . --bound attempts=3"),
    "probe": (
        "amends probe 127.0.0.1:50051 shop.v1.Payments/Charge --observe shop.v1.Payments/ListBalances",
        "amends probe 127.0.0.1:50051 shop.v1.Payments/Charge --request charge.json",
    ),
    "flows": ("amends flows --state late", "amends flows order-7 -n shop"),
    "events": (
        "amends events lag --address 127.0.0.1:7413",
        "amends events parked retry NAME --reason 'the handler is mended'",
    ),
    "webhooks": (
        "amends webhooks test on-call",
        "amends webhooks retry on-call/01a206d5-0000-7000-8000-000000000000 --reason 'it is back'",
    ),
    "dev": ("amends dev --data /tmp/amends --detach", "amends dev --stop"),
}
"""Two command lines for each command."""

WITHOUT_CLUSTER = ("dev", "probe", "audit", "events", "webhooks")
"""Commands that need no namespace of a context."""
ELSEWHERE = {
    "describe": "`amends get RUN` shows how a run stands, `amends watch RUN` what happened.",
    "logs": "`amends watch RUN` tells what happened to a run.",
    "create": "`amends apply FILE` puts definitions in force, `amends start SAGA` starts a run.",
    "ps": "`amends list` shows the runs.",
}
"""Commands of other tools, and what does the same here."""
LEADING = ("--address", "-n", "--namespace")
"""Options with a value that may stand before the command, as other command lines have them."""
MORE = "`amends help COMMAND` shows the options of a command, with examples."
USAGE_ERROR: Any = typer.BadParameter.__base__
"""What typer raises for every wrong command line."""
WORDS = (
    (re.compile(r"Value error, |, unable to parse string[^.]*"), ""),
    (re.compile("Input should be"), "it must be"),
)
"""Phrases of the library that checks values, and what people read instead."""


def build(names: Iterable[str] = COMMANDS, *, epilog: str | None = None) -> typer.Typer:
    """Build the application with some of its commands."""
    app = typer.Typer(
        name="amends",
        epilog=epilog,
        help="Durable sagas for the gRPC services you already have.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name in names:
        module, function = COMMANDS[name]
        # \b keeps the lines as they are.
        examples = "\b\n" + "\n".join(("Examples:", *(f"  {example}" for example in EXAMPLES[name])))
        command = getattr(import_module(f"amends_cli.commands.{module}"), function)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, epilog=examples)
        else:
            app.command(name, epilog=examples, cls=NamedArguments)(command)
    return app


def main(arguments: list[str] | None = None, program: str | None = None) -> None:
    """Run one command and exit with a code of `Exit`.

    Called `kubectl-amends` it speaks to the orchestrator of the cluster that kubectl speaks to.
    """
    given = sys.argv[1:] if arguments is None else arguments
    plugin = Path(program or sys.argv[0]).name.startswith("kubectl-")
    try:
        output.prepare()
        given = _texts(given)
        if plugin:
            given = _in_cluster(given)
        code = _run(given, plugin=plugin)
        output.finish()
    except output.OutputGoneError:
        output.discard()
        code = Exit.OK
    except KeyboardInterrupt:
        code = 128 + 2
    except CliError as failure:
        code = _show(failure)
    except OSError as error:  # help is printed by typer itself; other files are named where they are opened
        code = _show(CliError(f"{error.filename or 'the output'} cannot be written: {error.strerror}"))
    sys.exit(code)


def _show(failure: CliError) -> int:
    with contextlib.suppress(CliError, output.OutputGoneError):  # nobody can be told on a full disk
        first, *more = failure.message.split("\n")
        output.line(output.Styled("error: ", "red"), first, err=True)
        for line in more:
            output.line(line, err=True)
        if failure.hint:
            output.line(f"  {failure.hint}", err=True)
    try:
        output.finish()
    except (CliError, output.OutputGoneError):
        output.discard()
    return failure.code


def _texts(given: list[str]) -> list[str]:
    """Return the arguments as texts, also where the locale knows ASCII alone. Raises CliError (wrong use)."""
    texts = []
    for number, word in enumerate(given, 1):
        try:
            texts.append(os.fsencode(word).decode())
        except UnicodeError:
            raise usage(
                f"argument {number} is no UTF-8 text", "Look at its bytes; the terminal may use another encoding."
            ) from None
        if "\0" in word:
            raise usage(f"argument {number} holds a NUL character")
    return texts


def _command_first(given: list[str]) -> list[str]:
    """Return the command line with its command before the options that may stand before it."""
    at = 0
    while at < len(given) and given[at].partition("=")[0] in LEADING:
        at += 1 if "=" in given[at] else 2
    if given[at : at + 1] and given[at] in COMMANDS:
        return [given[at], *given[:at], *given[at + 1 :]]
    return given


def complete() -> None:
    """Complete for kubectl, which calls `kubectl_complete-amends` with the words so far and wants its own format."""
    words = sys.argv[1:]
    os.environ |= {
        "_AMENDS_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["amends", *words]),
        "COMP_CWORD": str(len(words)),
    }
    with contextlib.suppress(SystemExit):
        _run(words, plugin=False)
    output.line(":4")  # and no names of files


def _run(given: list[str], *, plugin: bool) -> int:
    """Run a command and return its exit code. Raises CliError."""
    given = _habits(_command_first(given))
    completing = any(name.endswith("_COMPLETE") for name in os.environ)
    names = given[:1] if given and given[0] in COMMANDS and not completing else COMMANDS
    app = build(names, epilog=f"{MORE} {cluster.HELP}" if plugin else MORE)
    name = "kubectl amends" if plugin else "amends"
    try:
        if not given and not completing:
            app(["--help"], prog_name=name, standalone_mode=False)
            return Exit.USAGE
        return int(app(given, prog_name=name, standalone_mode=False) or Exit.OK)
    except USAGE_ERROR as error:
        raise _wrong(error, name) from None
    except typer.Abort:
        raise CliError("it was ended from the terminal") from None


def _habits(given: list[str]) -> list[str]:
    """Translate what other command lines are used to: `help COMMAND` and `version`. Raises CliError for other verbs."""
    match given:
        case ["help"]:
            return ["--help"]
        case ["help", command, *_]:
            return [command, "--help"]
        case ["version"]:
            return ["--version"]
        case [verb, *_] if verb in ELSEWHERE:
            raise usage(f"there is no command `{verb}`", ELSEWHERE[verb])
    return given


def _wrong(error: Any, program: str) -> CliError:
    """Return a failure for what typer says of the command line."""
    text = " ".join(str(error.format_message()).split()).rstrip(".")
    for phrase, instead in WORDS:
        text = phrase.sub(instead, text)
    path = error.ctx.command_path if error.ctx is not None else program
    return usage(f"{text[:1].lower()}{text[1:]}", f"`{path} --help` shows how it is used.")


def _in_cluster(given: list[str]) -> list[str]:
    """Make the commands speak to a cluster; return the command line without kubectl's flags. Raises CliError."""
    through, rest = cluster.take_flags(given)
    rest = _command_first(rest)
    for name in (VARIABLE, MONITOR):  # of what is beside the cluster; --address still counts
        os.environ.pop(name, None)
    cluster.use(through)
    helping = not {"-h", "--help", "--version"}.isdisjoint(rest)
    if rest and rest[0] in COMMANDS and rest[0] not in WITHOUT_CLUSTER and not helping:
        named = any(word in ("-n", "--namespace", "-A") or word.startswith("--namespace=") for word in rest)
        if not named:
            os.environ.setdefault(cluster.NAMESPACE_VARIABLE, through.namespace())
    return rest


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # slow to load, and asked for once a year

        output.line(f"amends {version('amends-cli')}")
        raise typer.Exit


def _root(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Durable sagas for the gRPC services you already have."""
