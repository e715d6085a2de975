"""The command line `amends`, also `kubectl amends`: puts the commands together and shows failures.

Called by the console scripts. A check of one file must be quick, and typer works on every parameter of every command
that it is given: so it is given only the command that was asked for, unless somebody wants help or completion.
"""

import contextlib
import os
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from amends_cli import cluster
from amends_cli.connection import VARIABLE
from amends_cli.failure import Exit, Failure

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
    "dev": ("dev", "dev"),
}
"""Module in `amends_cli.commands` and function of each command."""


WITHOUT_CLUSTER = ("dev", "probe", "audit")
"""Commands that need no namespace of a context."""


def build(names: Iterable[str] = COMMANDS, *, epilog: str | None = None) -> typer.Typer:
    """The application with some of its commands."""
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
        app.command(name)(getattr(import_module(f"amends_cli.commands.{module}"), function))
    return app


def main(arguments: list[str] | None = None, program: str | None = None) -> None:
    """Runs one command and exits: 0 success, 1 a finding or a failed run, 2 wrong use.

    Called `kubectl-amends` it speaks to the orchestrator of the cluster that kubectl speaks to.
    """
    given = sys.argv[1:] if arguments is None else arguments
    plugin = Path(program or sys.argv[0]).name.startswith("kubectl-")
    try:
        if plugin:
            given = _in_cluster(given)
        _run(given, plugin=plugin)
    except Failure as failure:
        typer.secho("error: ", fg="red", nl=False, err=True)
        typer.echo(failure.message, err=True)
        if failure.hint:
            typer.echo(f"  {failure.hint}", err=True)
        sys.exit(failure.code)
    except BrokenPipeError:  # `amends list | head`
        sys.stderr.close()
        sys.exit(Exit.OK)


def complete() -> None:
    """Completes for kubectl, which calls `kubectl_complete-amends` with the words so far and wants its own format."""
    words = sys.argv[1:]
    os.environ |= {
        "_AMENDS_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["amends", *words]),
        "COMP_CWORD": str(len(words)),
    }
    with contextlib.suppress(SystemExit):
        _run(words, plugin=False)
    typer.echo(":4")  # and no names of files


def _run(given: list[str], *, plugin: bool) -> None:
    completing = any(name.endswith("_COMPLETE") for name in os.environ)
    names = given[:1] if given and given[0] in COMMANDS and not completing else COMMANDS
    app = build(names, epilog=cluster.HELP if plugin else None)
    app(given, prog_name="kubectl amends" if plugin else "amends")


def _in_cluster(given: list[str]) -> list[str]:
    """Makes the commands speak to a cluster; the command line without kubectl's flags. Raises Failure."""
    through, rest = cluster.take_flags(given)
    os.environ.pop(VARIABLE, None)  # of an orchestrator beside the cluster; --address still counts
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

        typer.echo(f"amends {version('amends-cli')}")
        raise typer.Exit


def _root(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Durable sagas for the gRPC services you already have."""
