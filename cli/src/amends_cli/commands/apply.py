"""`amends apply`: puts Participants, RetryPolicies and Sagas in force, in the order in which they need each other.

Choreographies go to the monitor, everything else to the orchestrator.
"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from amends_cli import connection, descriptors, findings, manifests, monitor, options, output, resources
from amends_cli.connection import CALL_TIMEOUT
from amends_cli.failure import Exit, usage
from amends_cli.manifests import Manifest
from amends_cli.output import Column, Format, field

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    from amends.monitor.v1.monitor_service_pb2_grpc import MonitorServiceStub

COLUMNS = [
    Column("RESOURCE", field("resource")),
    Column("RESULT", lambda row: row["result"] + (f", not ready: {row['message']}" if row["message"] else "")),
    Column("DIGEST", lambda row: row.get("digest", "")[:12]),
]


def apply(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="YAML or JSON files, folders of them, or -.")],
    descriptor_files: descriptors.DescriptorsOption = None,
    protos: descriptors.Protos = None,
    namespace: options.Namespace = "default",
    form: output.Output = Format.TABLE,
    address: connection.AddressOption = None,
    watching: monitor.MonitorOption = None,
) -> None:
    """Check resources and put them in force.

    Exit code 1 when one is refused; the others are in force then.
    """
    texts = manifests.read_files(files)
    documents = resources.split(texts, namespace)
    if not documents:
        raise usage("there is no resource in these files", "A resource has apiVersion, kind, metadata and spec.")
    for document in documents:
        if document.kind == "SagaRun":
            raise usage(f"{document.source}: a SagaRun is not applied here", "Start one with `amends start SAGA`.")
    contracts = descriptors.load(descriptor_files, protos)
    watched = [document for document in documents if document.kind == "Choreography"]
    others = [document for document in documents if document.kind != "Choreography"]
    if not watched:
        results = _apply_all(others, namespace, contracts, address)
    else:
        with monitor.connect(watching) as stub:  # before anything is applied: nobody may know where it is
            results = _apply_all(others, namespace, contracts, address)
            results += [_watch(stub, document, namespace, contracts) for document in watched]
    if form in (Format.TABLE, Format.WIDE):
        _show(results, form)
    else:
        data = [{**row, "findings": [findings.as_data(found) for found in row["findings"]]} for row in results]
        output.emit(data, form)
    if any(row["result"] == "refused" for row in results):
        raise typer.Exit(Exit.FAILED)


def _apply_all(
    documents: list[Manifest], namespace: str, contracts: "FileDescriptorSet | None", address: str | None
) -> list[dict[str, Any]]:
    if not documents:
        return []
    with connection.connect(address) as server:
        return [_apply(server, document, namespace, contracts) for document in documents]


def _apply(
    server: connection.OrchestratorConnection, document: Manifest, namespace: str, contracts: "FileDescriptorSet | None"
) -> dict[str, Any]:
    from amends.saga.v1 import definition_service_pb2 as api

    timeout = CALL_TIMEOUT.total_seconds()
    manifest = api.Manifest(text=document.text, source=document.source)
    answer: Any
    if document.kind == "Participant":
        known = _contract(document, contracts)
        participant = api.ApplyParticipantRequest(manifest=manifest, namespace=namespace, descriptors=known)
        answer = server.definitions.ApplyParticipant(participant, timeout=timeout)
    elif document.kind == "RetryPolicy":
        policy = api.ApplyRetryPolicyRequest(manifest=manifest, namespace=namespace)
        answer = server.definitions.ApplyRetryPolicy(policy, timeout=timeout)
    elif document.kind == "Saga":
        saga = api.ApplySagaRequest(manifest=manifest, namespace=namespace)
        answer = server.definitions.ApplySaga(saga, timeout=timeout)
    else:
        raise AssertionError(document.kind)
    stands = getattr(answer, "participant" if document.kind == "Participant" else "saga", None)
    return {
        "resource": f"{document.kind.lower()} {document.namespace or namespace}/{document.name}",
        "result": "applied" if answer.accepted else "refused",
        "message": stands.message if answer.accepted and stands is not None and not stands.ready else "",
        "digest": getattr(answer, "digest", ""),
        "findings": [findings.from_message(found) for found in answer.findings],
    }


def _watch(
    stub: "MonitorServiceStub", document: Manifest, namespace: str, contracts: "FileDescriptorSet | None"
) -> dict[str, Any]:
    from amends.monitor.v1 import monitor_service_pb2 as api
    from amends.saga.v1.definition_service_pb2 import Manifest as ManifestMessage

    request = api.ApplyChoreographyRequest(
        manifest=ManifestMessage(text=document.text, source=document.source),
        namespace=namespace,
        descriptors=b"" if contracts is None else contracts.SerializeToString(),
    )
    answer = stub.ApplyChoreography(request, timeout=CALL_TIMEOUT.total_seconds())
    return {
        "resource": f"choreography {document.namespace or namespace}/{document.name}",
        "result": "applied" if answer.accepted else "refused",
        "message": "",
        "digest": answer.choreography.digest if answer.accepted else "",
        "findings": [findings.from_message(found) for found in answer.findings],
    }


def _contract(document: Manifest, contracts: "FileDescriptorSet | None") -> bytes:
    """Return the contracts, if they declare the participant's service; else nothing: its own reflection is used."""
    spec = document.content.get("spec")
    wanted = spec.get("service") if isinstance(spec, dict) else None
    for file in contracts.file if contracts is not None else ():
        if any(f"{file.package}.{service.name}".lstrip(".") == wanted for service in file.service):
            return contracts.SerializeToString() if contracts is not None else b""
    return b""


def _show(results: list[dict[str, Any]], form: Format) -> None:
    found = [finding for row in results for finding in row["findings"]]
    if found:
        findings.show(found, summary=findings.plural([(len(results), "resource")]))
    output.emit_rows(results, COLUMNS, form, empty="nothing")
