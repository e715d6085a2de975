"""Options that several commands take, with what a shell may complete. Called by the commands."""

import getpass
import os
import socket
from typing import Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand

from amends_cli import suggestions
from amends_cli.cluster import NAMESPACE_VARIABLE


def _namespace(what: str) -> Any:
    return typer.Option(
        "-n",
        "--namespace",
        metavar="NAME",
        envvar=NAMESPACE_VARIABLE,
        autocompletion=suggestions.namespaces,
        help=what,
    )


Namespace = Annotated[str, _namespace("The namespace of resources that name none.")]
SagaNamespace = Annotated[str, _namespace("The saga's namespace.")]
EveryNamespace = Annotated[str, _namespace("Only of this namespace; left out: of all (with kubectl: -A).")]
RunNamespace = Annotated[str, _namespace("The run's namespace; a run of another one is refused.")]
Actor = Annotated[str, typer.Option("--actor", metavar="NAME", help="Who decides; left out: user@host.")]


class NamedArguments(TyperCommand):
    """A command whose help and usage call arguments by their names alone: typer would add Python's types and braces."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for parameter in self.params:
            if isinstance(parameter, TyperArgument):
                name = parameter.metavar or str(parameter.name).upper()
                shown = name if parameter.required else f"[{name}]"
                vars(parameter)["display_type_rich"] = lambda ctx: None
                vars(parameter)["get_usage_pieces"] = lambda ctx, shown=shown: [shown]


def me() -> str:
    """Return user@host: who decides, where nobody says otherwise."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may have no name for its user
        user = f"user {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
