"""The command line `amends`, also `kubectl amends`: puts the commands together and shows failures.

Called by the console scripts. A check of one file must be quick, and typer works on every parameter of every command
that it is given: so it is given only the command that was asked for, unless somebody wants help or completion.
"""

import os
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Annotated

import typer

from amends_cli.failure import Exit, Failure

COMMANDS = {
    "check": ("check", "check"),
    "apply": ("apply", "apply"),
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


def build(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """The application with some of its commands."""
    app = typer.Typer(
        name="amends",
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


def main(arguments: list[str] | None = None) -> None:
    """Runs one command and exits: 0 success, 1 a finding or a failed run, 2 wrong use."""
    given = sys.argv[1:] if arguments is None else arguments
    completing = any(name.endswith("_COMPLETE") for name in os.environ)
    names = given[:1] if given and given[0] in COMMANDS and not completing else COMMANDS
    try:
        build(names)(given, prog_name="amends")
    except Failure as failure:
        typer.secho("error: ", fg="red", nl=False, err=True)
        typer.echo(failure.message, err=True)
        if failure.hint:
            typer.echo(f"  {failure.hint}", err=True)
        sys.exit(failure.code)
    except BrokenPipeError:  # `amends list | head`
        sys.stderr.close()
        sys.exit(Exit.OK)


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
