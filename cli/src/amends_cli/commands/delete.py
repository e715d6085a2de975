"""`amends delete`: takes a saga, a participant or a retry policy out of force."""

from typing import Annotated, Any

import typer

from amends_cli import connection, output
from amends_cli.commands.show import BY_NAME, absent
from amends_cli.connection import CALL_TIMEOUT
from amends_cli.failure import usage


def delete(
    name: Annotated[str, typer.Argument(help="saga/NAME, participant/NAME or policy/NAME.")],
    namespace: connection.Namespace = "default",
    address: connection.Address = None,
) -> None:
    """Take one resource out of force. Runs in flight keep the definition that they started with."""
    from amends.saga.v1 import definition_service_pb2 as api

    kind, _, resource = name.partition("/")
    if kind not in BY_NAME or not resource:
        raise usage(f"`{name}` is no resource", "Give saga/NAME, participant/NAME or policy/NAME.")
    with connection.connect(address) as server:
        asked: dict[str, tuple[Any, Any]] = {
            "saga": (server.definitions.DeleteSaga, api.DeleteSagaRequest),
            "participant": (server.definitions.DeleteParticipant, api.DeleteParticipantRequest),
            "policy": (server.definitions.DeleteRetryPolicy, api.DeleteRetryPolicyRequest),
        }
        method, request = asked[kind]
        answer = method(request(namespace=namespace, name=resource), timeout=CALL_TIMEOUT.total_seconds())
    if not answer.deleted:
        raise absent(kind, namespace, resource)
    output.say(f"{kind} {namespace}/{resource} deleted")
