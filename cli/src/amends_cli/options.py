"""Options that several commands take, with what a shell may complete. Called by the commands."""

from typing import Annotated, Any

import typer

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
RunNamespace = Annotated[str, _namespace("The run's namespace; a run of another one is refused.")]
