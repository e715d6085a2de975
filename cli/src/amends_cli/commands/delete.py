"""`amends delete`: takes a saga, a participant or a retry policy out of force."""

from typing import Annotated, Any

import typer

from amends_cli import connection, options, output, suggestions
from amends_cli.connection import CALL_TIMEOUT
from amends_cli.failure import usage
from amends_cli.resources import SINGULAR, ListedKind, absent, resource_of


def delete(
    name: Annotated[
        str,
        typer.Argument(
            metavar="KIND/NAME",
            help="saga/NAME, participant/NAME or policy/NAME; also saga NAME.",
            autocompletion=suggestions.resources,
        ),
    ],
    resource: Annotated[str | None, typer.Argument(metavar="NAME", help="The resource's name, after its kind.")] = None,
    namespace: options.Namespace = "default",
    address: connection.AddressOption = None,
) -> None:
    """Take one resource out of force.

    Runs in flight keep the definition that they started with.
    """
    from amends.saga.v1 import definition_service_pb2 as api

    kind, called = resource_of(name, resource)
    if kind is ListedKind.RUNS:
        raise usage("a run cannot be deleted", "`amends cancel RUN` undoes what it did.")
    with connection.connect(address) as server:
        asked: dict[ListedKind, tuple[Any, Any]] = {
            ListedKind.SAGAS: (server.definitions.DeleteSaga, api.DeleteSagaRequest),
            ListedKind.PARTICIPANTS: (server.definitions.DeleteParticipant, api.DeleteParticipantRequest),
            ListedKind.POLICIES: (server.definitions.DeleteRetryPolicy, api.DeleteRetryPolicyRequest),
        }
        method, request = asked[kind]
        answer = method(request(namespace=namespace, name=called), timeout=CALL_TIMEOUT.total_seconds())
        if not answer.deleted:
            raise absent(server, kind, namespace, called)
    output.say(f"{SINGULAR[kind]} {namespace}/{called} deleted")
