"""`amends explore`: walks every interleaving of a saga before it runs, and shows what it saw.

The engine that the orchestrator runs is run here against every combination of answers, crashes, owners and decisions
within bounds. Called by people before they merge a definition, and by their CI.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amends_cli import connection, descriptors, findings, manifests, options, output, resources
from amends_cli.failure import CliError, Exit, usage
from amends_cli.output import Column, Format, Styled, field

if TYPE_CHECKING:
    from amends_saga.compiled import CompiledSaga
    from amends_saga.explore import Bounds, ExplorationResult, Violation
    from amends_saga.plan import Plan
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

Progress = Callable[[int, int], None]
Bound = Annotated[
    list[str] | None,
    typer.Option("--bound", metavar="NAME=VALUE", help="Look further or less far, e.g. attempts=3, owners=3, late=no."),
]
Seed = Annotated[
    str | None,
    typer.Option("--seed", metavar="SEED", help="Show the path that an earlier exploration printed; needs its bounds."),
]
Only = Annotated[
    str | None, typer.Option("--saga", metavar="NAME", help="The saga to explore, when there are several.")
]
TELL_EVERY = timedelta(seconds=1)
ENDS = [Column("END", field("end")), Column("STATES", field("states"))]
LIMITS = [Column("STEP", field("step")), Column("KIND", field("kind")), Column("MAY END IN", field("text"))]


@dataclass(frozen=True)
class ExploredSaga:
    """The result of exploring one saga."""

    plan: "Plan"
    result: "ExplorationResult"
    took: timedelta
    limits: "list[Violation]"
    """What plain steps suffer from a wire that duplicates, and from calls that are late by more than a window."""


def explore(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="YAML or JSON files, folders of them, or -.")],
    descriptor_files: descriptors.DescriptorsOption = None,
    protos: descriptors.Protos = None,
    bound: Bound = None,
    seed: Seed = None,
    saga: Only = None,
    namespace: options.Namespace = "default",
    form: output.Output = Format.TABLE,
    address: connection.AddressOption = None,
) -> None:
    """Walk every interleaving of a saga within bounds.

    Without contracts the orchestrator's participants are asked. Exit code 1 when an invariant is broken, or not all
    was seen.
    """
    bounds = _bounds(bound or [])
    contracts = descriptors.load(descriptor_files, protos)
    plans = [compiled.plan for compiled in _compile(files, contracts, namespace, saga, address)]
    if seed is not None:
        _replay(plans, seed, bounds, form)
        return
    seen = [_explore(plan, bounds) for plan in plans]
    if not output.emit([_as_data(one) for one in seen], form):
        for one in seen:
            _show(one)
    if not all(one.result.holds for one in seen):
        raise typer.Exit(Exit.FAILED)


def _bounds(texts: list[str]) -> "Bounds":
    from amends_saga.explore import Bounds

    try:
        return Bounds.parse(texts)
    except ValueError as error:
        raise usage(str(error)) from None


def _compile(
    files: list[str], known: "FileDescriptorSet | None", namespace: str, wanted: str | None, address: str | None
) -> "list[CompiledSaga]":
    from amends_saga import check as checker
    from amends_saga.definition import Document

    texts = manifests.read_files(files)
    if known is None:
        from amends_cli import contracts

        more, known = contracts.in_force(resources.split(texts, namespace), namespace, address)
        texts += more
    documents = [Document(text.source, text.text) for text in texts]
    result = checker.check(documents, namespace=namespace, descriptors=known.SerializeToString())
    if any(finding.is_error for finding in result.findings):
        findings.show(result.findings, summary=findings.plural([(len(texts), "file")]))
        raise usage("there is no sound saga to explore", "Mend what is shown above; `amends check` shows it again.")
    sagas = [one for one in result.sagas if wanted in (None, one.plan.saga)]
    if not sagas:
        raise usage(f"there is no saga {wanted!r}" if wanted else "there is no saga", "Name a file that has one.")
    return sagas


# ---------------------------------------------------------------- exploring


def _explore(plan: "Plan", bounds: "Bounds") -> ExploredSaga:
    from amends_saga import explore as explorer

    begun = time.monotonic()
    with _progress(f"{plan.namespace}/{plan.saga}", bounds) as progress:
        result = explorer.explore(plan, bounds, progress=progress)
        limits = _limits(plan, bounds, result, progress)
    return ExploredSaga(plan, result, timedelta(seconds=time.monotonic() - begun), limits)


def _limits(plan: "Plan", bounds: "Bounds", result: "ExplorationResult", progress: Progress) -> "list[Violation]":
    """Return what shows only when the wire misbehaves towards plain steps: no rule can prevent it."""
    from dataclasses import replace

    from amends_saga import explore as explorer

    if not any(step.action.kind.plain for step in plan.steps):
        return []
    rough = replace(bounds, owners=1, crashes=0, resolutions=0, plain_duplicates=True, windows=True)
    known = {(violation.step, violation.text) for violation in result.violations}
    seen = explorer.explore(plan, rough, progress=progress)
    plain = {step.name for step in plan.steps if step.action.kind.plain}
    return [one for one in seen.violations if one.step in plain and (one.step, one.text) not in known]


@contextmanager
def _progress(title: str, bounds: "Bounds") -> Iterator[Progress]:
    """Show on stderr what was seen so far: a bar on a terminal, else a line a second.

    How much there is to see is known only at the end.
    """
    console = output.progress_console()
    if not console.is_terminal:
        output.say(f"{title}: exploring within {bounds.text()}")
        told = time.monotonic()

        def say(states: int, depth: int) -> None:
            nonlocal told
            if time.monotonic() - told >= TELL_EVERY.total_seconds():
                told = time.monotonic()
                output.say(f"{title}: {states:,} states, {depth} moves deep")

        yield say
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[seen]}"), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None, seen="")

        def tell(states: int, depth: int) -> None:
            bar.update(task, seen=f"{states:,} states, {depth} moves deep")

        yield tell


# ---------------------------------------------------------------- telling


def _show(seen: ExploredSaga) -> None:
    plan, result = seen.plan, seen.result
    output.line(Styled(f"{plan.namespace}/{plan.saga}", bold=True))
    output.line(f"{result.states:,} states, {result.depth} moves deep, {seen.took.total_seconds():.1f} s")
    output.line(f"bounds: {result.bounds.text()}")
    output.line()
    ends = [{"end": end, "states": f"{count:,}"} for end, count in sorted(result.ends.items())]
    none = "the run comes to no end" if result.complete else "no end was seen"
    output.emit_rows(ends, ENDS, Format.TABLE, empty=none)
    for violation in result.violations:
        _show_violation(violation)
    _show_limits(plan, seen.limits)
    output.line()
    if result.violations:
        output.line(Styled(f"violated: {len(result.violations)} ways", fg="red"))
    elif not result.complete:
        said = f"not all was seen: stopped after {result.states:,} states; raise --bound states=N"
        output.line(Styled(said, fg="yellow"))
    else:
        output.line(Styled("holds: no invariant is broken within these bounds", fg="green"))


def _show_violation(violation: "Violation") -> None:
    where = f" ({violation.step})" if violation.step else ""
    output.line()
    output.line(Styled(f"{violation.text}{where}, after {len(violation.path) - 1} moves:", fg="red"))
    _show_path(violation.path)
    output.line(f"replay it: --seed {violation.seed}")


def _show_path(path: tuple[str, ...]) -> None:
    told = [_who(move) for move in path]
    width = max(len(who) for who, _ in told)
    for number, (who, what) in enumerate(told):
        output.line(f"{number:4}  {who:{width}}  {what}")


def _who(move: str) -> tuple[str, str]:
    """Return who acts, and what happens."""
    if move.startswith("!! "):
        return "broken", move.removeprefix("!! ")
    who, colon, what = move.partition(": ")
    if colon and (who.startswith("owner ") or who == "replaced owner"):
        return who, what
    if move.startswith("owner "):
        return " ".join(move.split()[:2]), move.split(maxsplit=2)[2]
    if move.startswith("a person says "):
        return "a person", move.removeprefix("a person ")
    return ("wire" if move.startswith(("late ", "after its window")) else ""), move


def _show_limits(plan: "Plan", limits: "list[Violation]") -> None:
    kinds = {step.name: step.action.kind for step in plan.steps}
    limits = sorted(limits, key=lambda one: plan.index[one.step])
    if any(kind.plain for kind in kinds.values()):
        output.line()
        output.line("not promised for plain steps, when the wire delivers a call twice or later than its window:")
        rows = [{"step": one.step, "kind": kinds[one.step].value, "text": one.text} for one in limits]
        output.emit_rows(rows, LIMITS, Format.TABLE, empty="none")


def _as_data(seen: ExploredSaga) -> dict[str, Any]:
    result = seen.result
    return {
        "namespace": seen.plan.namespace,
        "saga": seen.plan.saga,
        "holds": result.holds,
        "complete": result.complete,
        "states": result.states,
        "transitions": result.transitions,
        "depth": result.depth,
        "seconds": round(seen.took.total_seconds(), 3),
        "bounds": asdict(result.bounds),
        "ends": dict(sorted(result.ends.items())),
        "violations": [_violation(one) for one in result.violations],
        "limits": [_violation(one) for one in seen.limits],
    }


def _violation(one: "Violation") -> dict[str, Any]:
    return {"step": one.step, "text": one.text, "path": list(one.path), "seed": one.seed}


def _replay(plans: "list[Plan]", seed: str, bounds: "Bounds", form: Format) -> None:
    from amends_saga import explore as explorer

    if len(plans) > 1:
        raise usage("a seed belongs to one saga", "Name it with --saga.")
    try:
        path = explorer.replay_seed(plans[0], seed, bounds)
    except ValueError as error:
        raise usage(str(error)) from None
    if not output.emit(list(path), form):
        _show_path(path)
    if any(move.startswith("!! ") for move in path):
        raise CliError("the path breaks an invariant")
