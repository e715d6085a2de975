"""`amends delete`: takes a saga, a participant, a retry policy or a choreography out of force."""

from typing import Annotated, Any

import typer

from amends_cli import connection, monitor, options, output, suggestions
from amends_cli.connection import CALL_TIMEOUT
from amends_cli.failure import usage
from amends_cli.resources import SINGULAR, ListedKind, absent, fetch, fetch_all, resource_of


def delete(
    name: Annotated[
        str,
        typer.Argument(
            metavar="KIND/NAME",
            help="saga/NAME, participant/NAME, policy/NAME or choreography/NAME; also saga NAME.",
            autocompletion=suggestions.resources,
        ),
    ],
    resource: Annotated[str | None, typer.Argument(metavar="NAME", help="The resource's name, after its kind.")] = None,
    namespace: options.Namespace = "default",
    address: connection.AddressOption = None,
    watching: monitor.MonitorOption = None,
) -> None:
    """Take one resource out of force.

    Runs in flight keep the definition that they started with. The monitor forgets the flows of a choreography.
    """
    from amends.saga.v1 import definition_service_pb2 as api

    kind, called = resource_of(name, resource)
    if kind is ListedKind.RUNS:
        raise usage("a run cannot be deleted", "`amends cancel RUN` undoes what it did.")
    if kind is ListedKind.CHOREOGRAPHIES:
        _unwatch(namespace, called, watching)
        return
    with connection.connect(address) as server:
        asked: dict[ListedKind, tuple[Any, Any]] = {
            ListedKind.SAGAS: (server.definitions.DeleteSaga, api.DeleteSagaRequest),
            ListedKind.PARTICIPANTS: (server.definitions.DeleteParticipant, api.DeleteParticipantRequest),
            ListedKind.POLICIES: (server.definitions.DeleteRetryPolicy, api.DeleteRetryPolicyRequest),
        }
        method, request = asked[kind]
        answer = method(request(namespace=namespace, name=called), timeout=CALL_TIMEOUT.total_seconds())
        if not answer.deleted:
            raise absent(fetch_all(server, kind, ""), kind, namespace, called)
    output.say(f"{SINGULAR[kind]} {namespace}/{called} deleted")


def _unwatch(namespace: str, name: str, address: str | None) -> None:
    from amends.monitor.v1 import monitor_service_pb2 as api

    with monitor.connect(address) as stub:
        request = api.DeleteChoreographyRequest(namespace=namespace, name=name)
        deleted = stub.DeleteChoreography(request, timeout=CALL_TIMEOUT.total_seconds()).deleted
    if not deleted:
        everywhere = fetch(ListedKind.CHOREOGRAPHIES, "", None, address)
        raise absent(everywhere, ListedKind.CHOREOGRAPHIES, namespace, name)
    output.say(f"choreography {namespace}/{name} deleted")
