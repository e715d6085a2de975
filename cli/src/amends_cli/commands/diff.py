"""`amends diff`: what a change of definitions would do, to new runs and to those in flight."""

from typing import Annotated, Any

import typer

from amends_cli import changes, connection, findings, manifests, options, output
from amends_cli.failure import Exit, usage
from amends_cli.manifests import Manifest
from amends_cli.output import Format, Styled
from amends_cli.resources import ListedKind, check_by_server, fetch_all, split

KINDS = {"Saga": ListedKind.SAGAS, "Participant": ListedKind.PARTICIPANTS, "RetryPolicy": ListedKind.POLICIES}
LIVE = {
    "Participant": "address and grants hold for runs in flight too, from their next call on; "
    "what it says of its methods holds for runs that start from now on",
    "RetryPolicy": "holds for runs in flight too, from their next attempt on",
}


def diff(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="YAML or JSON files, folders of them, or -.")],
    namespace: options.Namespace = "default",
    form: output.Output = Format.TABLE,
    address: connection.AddressOption = None,
) -> None:
    """Show what applying files would change, and for which runs.

    Runs in flight stay on what they have. Exit code 1 when something would be refused.
    """
    texts = manifests.read_files(files)
    given = split(texts, namespace)
    documents = [document for document in given if document.kind in KINDS]
    for document in given:
        if document.kind == "Choreography":
            output.say(f"{document.source}: choreography {document.name} is not compared; `amends check` proves it")
    if not documents:
        raise usage("there is no definition in these files", "Name Sagas, Participants or RetryPolicies.")
    found = check_by_server(texts, namespace, address)
    with connection.connect(address) as server:
        rows = [_compare(server, document, namespace) for document in documents]
    if form in (Format.TABLE, Format.WIDE):
        for row in rows:
            _show(row)
        if found:
            findings.show(found, summary=findings.plural([(len(texts), "file")]))
    else:
        output.emit({"resources": rows, "findings": [findings.as_data(one) for one in found]}, form)
    if any(finding.is_error for finding in found):
        raise typer.Exit(Exit.FAILED)


def _compare(server: connection.OrchestratorConnection, document: Manifest, namespace: str) -> dict[str, Any]:
    where = document.namespace or namespace
    known = fetch_all(server, KINDS[document.kind], where)
    current = next((one for one in known if one.name == document.name), None)
    row: dict[str, Any] = {"kind": document.kind, "namespace": where, "name": document.name, "state": "new"}
    if current is None:
        return row | {"changes": [], "digest": "", "digests": []}
    found = changes.changes(_spec(current.manifest), document.content.get("spec") or {})
    uses = getattr(current, "digests", ())
    return row | {
        "state": "changed" if found else "unchanged",
        "changes": [change.as_data() for change in found],
        "digest": getattr(current, "digest", ""),
        "digests": [{"digest": use.digest, "running": use.running, "parked": use.parked} for use in uses],
    }


def _spec(text: str) -> dict[str, Any]:
    spec = manifests.content(text).get("spec")
    return spec if isinstance(spec, dict) else {}


def _show(row: dict[str, Any]) -> None:
    colour = {"new": "green", "changed": "yellow"}.get(row["state"])
    output.line(Styled(f"{row['kind']} {row['namespace']}/{row['name']}: {row['state']}", bold=True, fg=colour))
    for change in row["changes"]:
        for line in changes.tell(changes.FieldChange(**change)):
            output.line(f"  {line}")
    if row["kind"] == "Saga":
        _show_runs(row)
    elif row["state"] == "changed":
        output.line(f"  {LIVE[row['kind']]}")
    output.line()


def _show_runs(row: dict[str, Any]) -> None:
    flying = [use for use in row["digests"] if use["running"] or use["parked"]]
    if row["state"] == "changed":
        output.line("  runs that start from now on get the change; those in flight end as they began:")
    elif flying:
        output.line("  runs in flight:")
    for use in flying:
        parked = f", {use['parked']} of them parked" if use["parked"] else ""
        version = "in force" if use["digest"] == row["digest"] else "older"
        output.line(f"    {use['digest'][:12]}  {version}: {use['running']} running{parked}")
    if not flying and row["state"] != "new":
        output.line("    no run is in flight")
