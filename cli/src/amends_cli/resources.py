"""Resources and runs of the orchestrator, as several commands need them: their kinds, names, files and JSON.

Called by the commands, which do not call each other, and by `contracts`.
"""

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import typer

from amends_cli import connection, findings, manifests, monitor
from amends_cli.connection import CALL_TIMEOUT
from amends_cli.failure import CliError, Exit, usage
from amends_cli.manifests import Manifest, ManifestUnreadableError, Text

if TYPE_CHECKING:
    from amends_saga.findings import Finding


class ListedKind(StrEnum):
    """The kinds of things that can be listed."""

    RUNS = "runs"
    SAGAS = "sagas"
    PARTICIPANTS = "participants"
    POLICIES = "policies"
    CHOREOGRAPHIES = "choreographies"


_POLICIES = ("policy", "policies", "retrypolicy", "retrypolicies", "retry-policy", "retry-policies", "rp")
ALSO = {
    **dict.fromkeys(("run", "runs"), ListedKind.RUNS),
    **dict.fromkeys(("saga", "sagas"), ListedKind.SAGAS),
    **dict.fromkeys(("participant", "participants"), ListedKind.PARTICIPANTS),
    **dict.fromkeys(_POLICIES, ListedKind.POLICIES),
    **dict.fromkeys(("choreography", "choreographies"), ListedKind.CHOREOGRAPHIES),
}
"""Every way to name a kind: one, many, and short."""
SINGULAR = {
    ListedKind.RUNS: "run",
    ListedKind.SAGAS: "saga",
    ListedKind.PARTICIPANTS: "participant",
    ListedKind.POLICIES: "policy",
    ListedKind.CHOREOGRAPHIES: "choreography",
}
"""The word for one of a kind; it stands before the name of a resource, as in `saga/place-order`."""


def kind_of(text: str | ListedKind) -> ListedKind:
    """Return the kind that a person named, in singular or plural. Raises BadParameter."""
    kind = ALSO.get(text.lower())
    if kind is None:
        raise typer.BadParameter(f"`{text}` is no kind; the kinds are {', '.join(ListedKind)}")
    return kind


def resource_of(name: str, more: str | None = None) -> tuple[ListedKind, str]:
    """Return kind and name of `saga/NAME` or `saga NAME`. Raises CliError (wrong use)."""
    kind, slash, resource = name.partition("/")
    if more is not None:
        kind, resource = name, more
    if kind.lower() not in ALSO or not resource or (slash and more is not None):
        raise usage(f"`{name}` is no resource", "Give saga/NAME, participant/NAME, policy/NAME or choreography/NAME.")
    return ALSO[kind.lower()], resource


def plain(message: Any) -> dict[str, Any]:
    """Return a message as canonical protobuf JSON."""
    from google.protobuf.json_format import MessageToDict

    data: dict[str, Any] = MessageToDict(message)
    return data


def plain_run(run: Any) -> dict[str, Any]:
    """Return a run as canonical protobuf JSON, with its payloads as the orchestrator wrote them: 1 is 1 and not 1.0."""
    data = plain(run)
    _unfold(data, "input")
    for step in data.get("steps", ()):
        _unfold(step, "response")
    return data


def _unfold(data: dict[str, Any], name: str) -> None:
    text = data.pop(f"{name}Json", "")
    if text:
        data[name] = json.loads(text)


def fetch_all(server: connection.OrchestratorConnection, kind: ListedKind, namespace: str) -> list[Any]:
    """Read all sagas, participants or policies; an empty namespace means all. grpc errors pass through."""
    from amends.saga.v1 import definition_service_pb2 as api

    timeout = CALL_TIMEOUT.total_seconds()
    if kind is ListedKind.SAGAS:
        return list(server.definitions.ListSagas(api.ListSagasRequest(namespace=namespace), timeout=timeout).sagas)
    if kind is ListedKind.PARTICIPANTS:
        participants = api.ListParticipantsRequest(namespace=namespace)
        return list(server.definitions.ListParticipants(participants, timeout=timeout).participants)
    policies = api.ListRetryPoliciesRequest(namespace=namespace)
    return list(server.definitions.ListRetryPolicies(policies, timeout=timeout).retry_policies)


def fetch(kind: ListedKind, namespace: str, address: str | None, watching: str | None) -> list[Any]:
    """Read all resources of a kind: choreographies from the monitor, others from the orchestrator. Raises CliError."""
    if kind is not ListedKind.CHOREOGRAPHIES:
        with connection.connect(address) as server:
            return fetch_all(server, kind, namespace)
    from amends.monitor.v1 import monitor_service_pb2 as api

    with monitor.connect(watching) as stub:
        request = api.ListChoreographiesRequest(namespace=namespace)
        return list(stub.ListChoreographies(request, timeout=CALL_TIMEOUT.total_seconds()).choreographies)


def split(texts: list[Text], namespace: str) -> list[Manifest]:
    """Return the resources of all files. Unreadable ones are shown as `check` shows them; the command ends with 1."""
    try:
        return manifests.split(texts)
    except ManifestUnreadableError:
        from amends_saga.definition import Document, read

        found = read([Document(text.source, text.text) for text in texts], namespace=namespace).findings
        errors = [finding for finding in found if finding.is_error]
        if not errors:
            raise
        findings.show(errors, summary=findings.plural([(len(texts), "file")]))
        raise typer.Exit(Exit.FAILED) from None


def check_by_server(texts: list[Text], namespace: str, address: str | None) -> "list[Finding]":
    """Return the findings of the orchestrator, which knows its participants. Raises CliError."""
    from amends.saga.v1 import definition_service_pb2 as api

    sent = [api.Manifest(text=text.text, source=text.source) for text in texts]
    with connection.connect(address) as server:
        request = api.CheckSagaRequest(manifests=sent, namespace=namespace)
        answer = server.definitions.CheckSaga(request, timeout=CALL_TIMEOUT.total_seconds())
    return [findings.from_message(found) for found in answer.findings]


def absent(everywhere: list[Any], kind: ListedKind, namespace: str, name: str) -> CliError:
    """Return the failure for a resource that does not exist, with a namespace that has one of that name, if any."""
    hint = f"`amends list {kind}` shows those that are there."
    elsewhere = sorted(one.namespace for one in everywhere if one.name == name)
    if elsewhere:
        hint = f"There is one in the namespace {elsewhere[0]}: add `-n {elsewhere[0]}`."
    return CliError(f"there is no {SINGULAR[kind]} {namespace}/{name}", hint)
