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
from amends_cli.output import Column, Format, field

if TYPE_CHECKING:
    from amends_saga.check import CheckResult, SagaFigures
    from amends_saga.findings import Finding
    from google.protobuf.descriptor_pb2 import FileDescriptorSet


FIGURES = [
    Column("STEP", field("step")),
    Column("METHOD", field("method")),
    Column("KIND", field("kind")),
    Column("PIVOT", field("position")),
    Column("ATTEMPTS", field("attempts")),
    Column("TIMEOUT", field("timeout")),
    Column("WORST CASE", field("worst")),
    Column("COMPENSATION", field("compensation")),
]


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
    if contracts:
        result = _locally(texts, contracts, namespace)
        found = result.findings
        if form is Format.WIDE:
            _show_figures(result.figures)
    else:
        found = _by_server(texts, namespace, address)
    findings.show(found, form, summary=findings.plural([(len(texts), "file")]))
    if any(finding.is_error for finding in found):
        raise typer.Exit(Exit.FAILED)


def _locally(texts: list[Text], contracts: "FileDescriptorSet", namespace: str) -> "CheckResult":
    from amends_saga import check as checker  # a server checks without it
    from amends_saga.definition import Document

    documents = [Document(text.source, text.text) for text in texts]
    return checker.check(documents, namespace=namespace, descriptors=contracts.SerializeToString())


def _show_figures(sagas: "list[SagaFigures]") -> None:
    from amends_saga.definition import format_duration

    for saga in sagas:
        deadline = "none" if saga.deadline is None else format_duration(saga.deadline)
        worst = format_duration(saga.worst_case)
        typer.echo(f"{saga.namespace}/{saga.saga}: worst case {worst} before the pivot, deadline {deadline}")
        rows = [
            {
                "step": step.name,
                "method": step.method,
                "kind": step.kind,
                "position": step.position,
                "attempts": step.attempts,
                "timeout": step.timeout and format_duration(step.timeout),
                "worst": step.worst_case and format_duration(step.worst_case),
                "compensation": step.compensation,
            }
            for step in saga.steps
        ]
        output.emit_rows(rows, FIGURES, Format.TABLE, empty="no steps")


def _by_server(texts: list[Text], namespace: str, address: str | None) -> "list[Finding]":
    from amends.saga.v1 import definition_service_pb2 as api

    sent = [api.Manifest(text=text.text, source=text.source) for text in texts]
    with connection.connect(address) as server:
        request = api.CheckSagaRequest(manifests=sent, namespace=namespace)
        answer = server.definitions.CheckSaga(request, timeout=CALL_TIMEOUT.total_seconds())
    return [findings.from_message(found) for found in answer.findings]
