"""Records golden journals: `python tests/golden/record.py v0.2` before a release that changes what journals hold.

A journal that was recorded once is never written again: it must replay for ever, whatever the engine becomes. New
names are added, and their digests to the list.
"""

import json
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

from amends_saga.engine.events import Effect, ParkReason, ResolutionAction
from amends_testkit.engine.by_hand import ByHand
from amends_testkit.engine.golden import dump
from amends_testkit.engine.shapes import shape

JOURNALS = Path(__file__).parent / "journals"
DIGESTS = "SHA256SUMS"
SCENARIOS: dict[str, Callable[[], ByHand]] = {}


def scenario(make: Callable[[], ByHand]) -> Callable[[], ByHand]:
    """Add a scenario under the name of its function; its docstring says what happens."""
    SCENARIOS[make.__name__.replace("_", "-")] = make
    return make


def at_pivot(text: str, uses: dict[str, str] | None = None) -> ByHand:
    """A run whose pivot, its second step, was just called."""
    run = ByHand.ready(shape(text, uses=uses))
    return run.settle().ok("a", response=b"a-1").settle()


@scenario
def ok() -> ByHand:
    """An order that is placed: two steps, the pivot, and a step after it that uses two answers."""
    run = ByHand.ready(shape("g>g>P>g", uses={"d": "bc"})).ok("a", response=b"a-1").ok("b", response=b"b-1").settle()
    return run.ok("c", response=b"c-1").settle().ok("d").settle()


@scenario
def parallel_with_when() -> ByHand:
    """Two steps side by side, and one that `when` leaves out."""
    run = ByHand.ready(shape("r>g|g>g>P", uses={"b": "a"}, when="d"), left_out="d").ok("a", response=b"7").settle()
    return run.ok("c", "b").settle().ok("e").settle()


@scenario
def declined() -> ByHand:
    """The second step is rejected: both are undone, backwards."""
    run = ByHand.ready(shape("g>g>P")).ok("a").rejected("b", "CARD_DECLINED", "the card was declined").settle()
    return run.ok("undo b").unknown("undo a").wait().ok("undo a").settle()


@scenario
def exhausted() -> ByHand:
    """The first step is not answered as often as its policy allows."""
    run = ByHand.ready(shape("g>g")).unknown("a").wait().unknown("a", again=None).settle()
    return run.ok("undo a").settle()


@scenario
def deadline() -> ByHand:
    """The deadline passes while a step waits for another attempt."""
    run = ByHand.ready(shape("g>g")).ok("a").unknown("b", again=timedelta(minutes=5)).wait(timedelta(minutes=2))
    return run.settle().ok("undo b").ok("undo a").settle()


@scenario
def cancelled() -> ByHand:
    """Somebody cancels before the pivot."""
    return ByHand.ready(shape("g>g>P")).ok("a").cancel().settle().ok("undo b").ok("undo a").settle()


@scenario
def expression_failed() -> ByHand:
    """A request cannot be built before the pivot."""
    run = ByHand.ready(shape("g>g"), errors={"b": "index out of range"}).ok("a").settle()
    return run.ok("undo a").settle()


@scenario
def pivot_voided() -> ByHand:
    """The pivot is rejected and voided: everything is undone."""
    run = at_pivot("g>P>g").rejected("b", message="no courier").unknown("void b").wait().voided("void b").settle()
    return run.ok("undo a").settle()


@scenario
def pivot_done_after_all() -> ByHand:
    """The pivot is not answered; the void finds that it ran, and the run goes forward."""
    run = at_pivot("g>P>g").unknown("b", again=None).ok("void b", response=b"b-1").settle()
    return run.rejected("c").settle().resolve(ResolutionAction.RETRY).ok("c").settle()


@scenario
def undone_by_its_own_response() -> ByHand:
    """A compensation needs its action's response, which a void fetches."""
    run = ByHand.ready(shape("g>g", uses_self="a")).unknown("a", again=None).settle()
    return run.ok("void a", response=b"a-1").ok("undo a").settle()


@scenario
def parked_and_retried() -> ByHand:
    """A step after the pivot is rejected; a person says retry."""
    run = at_pivot("g>P>k").ok("b").settle().rejected("c").settle()
    return run.resolve(ResolutionAction.RETRY).settle().ok("c").settle()


@scenario
def parked_and_skipped() -> ByHand:
    """A step after the pivot is rejected; a person skips it and says what to assume."""
    run = at_pivot("g>P>g>g", uses={"d": "c"}).ok("b").rejected("c").settle()
    return run.resolve(ResolutionAction.SKIP, result=b"assumed").voided("void c").settle().ok("d").settle()


@scenario
def parked_and_compensated() -> ByHand:
    """A key was reused at the pivot; a person says compensate."""
    run = at_pivot("g>P").unknown("b", again=None, reason=ParkReason.KEY_REUSED).settle()
    return run.resolve(ResolutionAction.COMPENSATE).voided("void b").settle().ok("undo a").settle()


@scenario
def parked_and_amended() -> ByHand:
    """A step after the pivot is rejected; a person chooses what to do instead, which is not answered at first."""
    run = at_pivot("g>P>g>g/k").ok("b").rejected("c").settle().resolve(ResolutionAction.AMEND, amendment=4)
    run = run.voided("void c").voided("void d").settle().unknown("e").wait().successor().settle()
    return run.ok("e").settle()


@scenario
def compensation_skipped() -> ByHand:
    """A compensation is rejected; a person did it by hand."""
    run = ByHand.ready(shape("g>g")).ok("a").rejected("b").settle().ok("undo b").rejected("undo a").settle()
    return run.resolve(ResolutionAction.SKIP).voided("void-undo a").settle()


@scenario
def plain_in_doubt() -> ByHand:
    """A method that promises nothing is not answered; a person says that it happened, and to undo."""
    run = ByHand.ready(shape("o>k>P")).settle().unknown("a").settle()
    return run.resolve(ResolutionAction.COMPENSATE, effect=Effect.HAPPENED).settle().ok("undo a").settle()


@scenario
def plain_pivot_in_doubt() -> ByHand:
    """A plain pivot is not answered; a person says that it never happened, and to go on without it."""
    run = at_pivot("k>K>i").unknown("b", again=None).settle()
    return run.resolve(ResolutionAction.SKIP, effect=Effect.NONE).settle().ok("c").settle()


@scenario
def stalled_and_parked() -> ByHand:
    """A step after the pivot is not answered for long; a person parks the run and skips the step."""
    run = at_pivot("g>P>g").ok("b").unknown("c").wait().unknown("c").park().settle()
    return run.resolve(ResolutionAction.SKIP).ok("void c").settle()


@scenario
def released() -> ByHand:
    """An owner lets go of a run that waits; the next goes on and undoes only what was attempted."""
    run = ByHand.ready(shape("g>g>g>P")).ok("a").unknown("b").release().settle().successor().wait()
    return run.rejected("b").settle().ok("undo b").ok("undo a").settle()


@scenario
def taken_over() -> ByHand:
    """An owner dies with calls under way and records lost; the next undoes what may have been attempted."""
    run = ByHand.ready(shape("g>g>g>P")).ok("a").ok("b").successor(lost=1).rejected("b").settle()
    return run.ok("undo c").ok("undo b").ok("undo a").settle()


@scenario
def taken_over_twice() -> ByHand:
    """Two owners die, the second while it undoes; a plain step with an open intent is in doubt."""
    run = ByHand.ready(shape("g>k>P")).ok("a").settle().successor().settle()
    run = run.ok("b").settle().successor().settle()
    return run.rejected("c").voided("void c").settle()


def journals(wanted: Path) -> Iterator[tuple[Path, str]]:
    """Yield every journal as file and text."""
    for name, make in SCENARIOS.items():
        run = make()
        data = dump(name, make.__doc__ or "", run.plan, run.journal)
        yield wanted / f"{name}.json", json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def main(version: str) -> None:
    """Record what is not recorded yet."""
    folder = JOURNALS / version
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in journals(folder):
        if file.exists():
            print(f"kept      {file.name}")
        else:
            file.write_text(text, encoding="utf-8")
            print(f"recorded  {file.name}")
    lines = [f"{sha256(f.read_bytes()).hexdigest()}  {f.relative_to(JOURNALS)}\n" for f in sorted(JOURNALS.glob("*/*"))]
    (JOURNALS / DIGESTS).write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
