"""The command line `amends`, also `kubectl amends`: puts the commands together and shows failures.

Called by the console scripts. Commands import what they need when they run: a check of one file must be quick.
"""

import sys
from typing import Annotated

import typer

from amends_cli.commands import apply, check, dev, runs, show
from amends_cli.failure import Exit, Failure

app = typer.Typer(
    name="amends",
    help="Durable sagas for the gRPC services you already have.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("check")(check.check)
app.command("apply")(apply.apply)
app.command("get")(show.get)
app.command("list")(show.list_)
app.command("start")(runs.start)
app.command("watch")(runs.watch)
app.command("resolve")(runs.resolve)
app.command("cancel")(runs.cancel)
app.command("dev")(dev.dev)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # slow to load, and asked for once a year

        typer.echo(f"amends {version('amends-cli')}")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Durable sagas for the gRPC services you already have."""


def main(arguments: list[str] | None = None) -> None:
    """Runs one command and exits: 0 success, 1 a finding or a failed run, 2 wrong use."""
    try:
        app(arguments)
    except Failure as failure:
        typer.secho("error: ", fg="red", nl=False, err=True)
        typer.echo(failure.message, err=True)
        if failure.hint:
            typer.echo(f"  {failure.hint}", err=True)
        sys.exit(failure.code)
    except BrokenPipeError:  # `amends list | head`
        sys.stderr.close()
        sys.exit(Exit.OK)
