"""Finds the run that a person named: by its id, by the beginning of it, by a SagaRun's name, or by its key.

Called by every command about one run.
"""

from typing import Any

import typer

from amends_cli import cluster, connection
from amends_cli.connection import CALL_TIMEOUT, PREFIX, RUN_ID
from amends_cli.failure import CliError, usage


def find(server: connection.OrchestratorConnection, context: typer.Context, name: str) -> str:
    """Return the whole id of a run. Raises CliError when there is none, or several, or it is in another namespace."""
    namespace = str(context.params.get("namespace", ""))
    run_id = _whole(server, name.lower(), name, namespace)
    said = context.get_parameter_source("namespace")
    if said is not None and said.name == "COMMANDLINE":
        run = fetch(server, run_id, payloads=False)
        if run.namespace != namespace:
            raise CliError(
                f"the run {run_id} is in the namespace {run.namespace}, not in {namespace}",
                "Leave -n out: a run's id is enough.",
            )
    return run_id


def fetch(
    server: connection.OrchestratorConnection, run_id: str, namespace: str = "", key: str = "", *, payloads: bool = True
) -> Any:
    """Read one run by its id, or by namespace and key. grpc errors pass through."""
    from amends.saga.v1 import run_service_pb2

    request = run_service_pb2.GetRunRequest(run_id=run_id, namespace=namespace if key else "", idempotency_key=key)
    request.payloads = run_service_pb2.PAYLOADS_TEXT if payloads else run_service_pb2.PAYLOADS_NONE
    return server.runs.GetRun(request, timeout=CALL_TIMEOUT.total_seconds()).run


def find_by_key(server: connection.OrchestratorConnection, namespace: str, key: str) -> str:
    """Return the id of the run with a key. Raises CliError, with the namespace that has it if another one does."""
    import grpc

    from amends.saga.v1 import definition_service_pb2 as api

    try:
        return str(fetch(server, "", namespace, key, payloads=False).run_id)
    except grpc.RpcError as error:
        if connection.reason_of(error) != "RUN_UNKNOWN":
            raise
    known = server.definitions.ListSagas(api.ListSagasRequest(), timeout=CALL_TIMEOUT.total_seconds()).sagas
    others = {one.namespace for one in known} - {namespace}
    for other in sorted(others):
        try:
            fetch(server, "", other, key, payloads=False)
        except grpc.RpcError as error:
            if connection.reason_of(error) != "RUN_UNKNOWN":
                raise
        else:
            raise CliError(
                f"no run in the namespace {namespace} has the key {key}", f"There is one in {other}: add `-n {other}`."
            )
    raise CliError(f"no run in the namespace {namespace} has the key {key}", "`amends list -o wide` shows the keys.")


def _whole(server: connection.OrchestratorConnection, name: str, given: str, namespace: str) -> str:
    if RUN_ID.fullmatch(name):
        return name
    through = cluster.current()
    if through is not None:
        found = through.run_id(namespace, given)
        if found is not None:
            return found
    if not PREFIX.fullmatch(name):
        hint = f"`amends list` shows the ids; `amends get --key {given} -n NAMESPACE` finds a run by its key."
        raise usage(f"`{given}` is no run's id", hint)
    return _only(server, name)


def _only(server: connection.OrchestratorConnection, prefix: str) -> str:
    from amends.saga.v1 import run_service_pb2

    request = run_service_pb2.ListRunsRequest(run_id_prefix=prefix, page_size=4)
    page = server.runs.ListRuns(request, timeout=CALL_TIMEOUT.total_seconds())
    # An orchestrator of an earlier version does not know the field, and answers with its newest runs.
    found = [run.run_id for run in page.runs if run.run_id.startswith(prefix)]
    if not found:
        raise CliError(f"no run's id begins with {prefix}", "`amends list` shows the runs.", reason="RUN_UNKNOWN")
    if len(found) > 1:
        more = ", ..." if page.next_page_token else ""
        raise usage(f"several runs' ids begin with {prefix}: {', '.join(found[:3])}{more}", "Give more of the id.")
    return str(found[0])
