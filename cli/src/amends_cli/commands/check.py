"""`amends check`: says what is wrong with Sagas, Participants and RetryPolicies, without changing anything.

With contracts at hand (--descriptors, --protos) no server is needed, and none of its libraries is loaded: the whole
process must take well under a second. Without them the orchestrator checks against what its participants say.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from amends_cli import connection, descriptors, findings, manifests, output
from amends_cli.connection import CALL_TIMEOUT
from amends_cli.failure import Exit
from amends_cli.manifests import Text
from amends_cli.output import Format

if TYPE_CHECKING:
    from amends_saga.findings import Finding
    from google.protobuf.descriptor_pb2 import FileDescriptorSet


def check(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="YAML or JSON files, folders of them, or -.")],
    descriptor_files: descriptors.Descriptors = None,
    protos: descriptors.Protos = None,
    namespace: connection.Namespace = "default",
    form: output.Output = Format.TABLE,
    address: connection.Address = None,
) -> None:
    """Check definitions. Exit code 1 when there is an error; warnings alone are a success."""
    texts = manifests.read_files(files)
    contracts = descriptors.load(descriptor_files, protos)
    found = _locally(texts, contracts, namespace) if contracts else _by_server(texts, namespace, address)
    findings.show(found, form, summary=findings.plural([(len(texts), "file")]))
    if any(finding.is_error for finding in found):
        raise typer.Exit(Exit.FAILED)


def _locally(texts: list[Text], contracts: "list[tuple[str, FileDescriptorSet]]", namespace: str) -> "list[Finding]":
    from amends_saga.check import check_documents
    from amends_saga.definition import Document

    documents = [Document(text.source, text.text) for text in texts]
    return check_documents(documents, contracts, namespace=namespace)


def _by_server(texts: list[Text], namespace: str, address: str | None) -> "list[Finding]":
    from amends.saga.v1 import definition_service_pb2 as api

    sent = [api.Manifest(text=text.text, source=text.source) for text in texts]
    with connection.connect(address) as server:
        request = api.CheckSagaRequest(manifests=sent, namespace=namespace)
        answer = server.definitions.CheckSaga(request, timeout=CALL_TIMEOUT.total_seconds())
    return [findings.from_message(found) for found in answer.findings]
