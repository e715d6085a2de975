"""`amends check`: says what is wrong with Sagas, Participants and RetryPolicies, without changing anything.

With contracts at hand (--descriptors, --protos) no server is needed, and none of its libraries is loaded: the whole
process must take well under a second. Without them the orchestrator checks against what its participants say.
"""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from amends_cli import connection, descriptors, findings, manifests, options, output
from amends_cli.failure import Exit
from amends_cli.manifests import Text
from amends_cli.output import Format, Styled
from amends_cli.resources import check_by_server

if TYPE_CHECKING:
    from amends_saga.check import CheckResult, ChoreographyCheck, SagaFigures
    from amends_saga.findings import Finding
    from google.protobuf.descriptor_pb2 import FileDescriptorSet


class ReportFormat(StrEnum):
    """The form in which `check` prints its findings."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    SARIF = "sarif"


def check(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="YAML or JSON files, folders of them, or -.")],
    descriptor_files: descriptors.DescriptorsOption = None,
    protos: descriptors.Protos = None,
    namespace: options.Namespace = "default",
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 for warnings too.")] = False,
    form: Annotated[
        ReportFormat, typer.Option("-o", "--output", help="How to print; wide adds figures.")
    ] = ReportFormat.TABLE,
    address: connection.AddressOption = None,
) -> None:
    """Say what is wrong with definitions, and how to mend it.

    Exit code 1 when there is an error; warnings alone are a success, unless --strict is given.
    """
    texts = manifests.read_files(files)
    contracts = descriptors.load(descriptor_files, protos)
    if contracts is not None:
        result = _locally(texts, contracts, namespace)
        found, figures, choreographies = result.findings, result.figures, result.choreographies
    else:
        found, figures, choreographies = check_by_server(texts, namespace, address), [], []
    _show(found, figures, choreographies, form, findings.plural([(len(texts), "file")]))
    if any(strict or finding.is_error for finding in found):
        raise typer.Exit(Exit.FAILED)


def _locally(texts: list[Text], contracts: "FileDescriptorSet", namespace: str) -> "CheckResult":
    from amends_saga import check as checker  # a server checks without it
    from amends_saga.definition import Document

    documents = [Document(text.source, text.text) for text in texts]
    result = checker.check(documents, namespace=namespace, descriptors=contracts.SerializeToString())
    for node in result.resources.passed_by:
        kind, place = node.get("kind"), node.place()
        output.say(f"{place.source}:{place.line}: passed by: {kind.value if kind is not None else 'another kind'}")
    return result


def _show(
    found: "list[Finding]",
    figures: "list[SagaFigures]",
    choreographies: "list[ChoreographyCheck]",
    form: ReportFormat,
    summary: str,
) -> None:
    from amends_saga.check import render

    if form is ReportFormat.SARIF:
        output.emit(render.sarif(found), Format.JSON)
    elif form in (ReportFormat.JSON, ReportFormat.YAML):
        data = {"findings": [findings.as_data(finding) for finding in found]}
        output.emit(data | {"figures": render.as_json([], figures)["figures"]}, Format(form))
    else:
        for saga in figures if form is ReportFormat.WIDE else ():
            output.line(Styled(f"{saga.namespace}/{saga.saga}", bold=True))
            headings, rows = render.figures_table(saga)
            output.emit_table(headings, rows)
            output.lines("\n".join(render.figures_lines(saga)) + "\n\n")
        if form is ReportFormat.TABLE and not any(finding.is_error for finding in found):
            for saga in figures:
                output.line(render.figures_line(saga))
        for choreography in choreographies:
            if choreography.plan is not None:
                output.line(render.choreography_line(choreography))
        findings.show(found, summary=summary)
