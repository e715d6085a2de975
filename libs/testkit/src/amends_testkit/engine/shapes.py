"""Plans in one line: `g>g>P` is two guarded steps and a guarded pivot. Called by the tests and the simulation.

`>` puts steps in a row, `|` side by side. `g` guarded, `k` KEYED, `i` IDEMPOTENT, `o` once, `r` a read; a capital
letter is the pivot, where `P` is a guarded one. Behind `/` stand the amendments, which only a person begins: `P>g/gk`
offers two. Steps are called a, b, c in the order of the text.
"""

from collections.abc import Mapping
from datetime import timedelta
from string import ascii_lowercase

from amends_saga.plan import CallPlan, MethodKind, Plan, StepPlan

SERVICE = "test.v1.TestService"
KINDS = {
    "g": MethodKind.GUARDED,
    "p": MethodKind.GUARDED,
    "k": MethodKind.KEYED,
    "i": MethodKind.IDEMPOTENT,
    "o": MethodKind.ONCE,
    "r": MethodKind.READ,
}


def shape(
    text: str,
    *,
    uses: Mapping[str, str] | None = None,
    uses_self: str = "",
    when: str = "",
    deadline: timedelta | None = timedelta(minutes=1),
    stalled_after: timedelta | None = None,
    retention: timedelta | None = None,
    window: timedelta | None = None,
    service: str = SERVICE,
) -> Plan:
    """Return the plan of a shape. `uses` maps a step to those whose response it uses; the others are step names."""
    text, _, offered = text.partition("/")
    groups = [group.split("|") for group in text.split(">")]
    names = iter(ascii_lowercase)
    numbers: dict[str, int] = {}
    users = uses or {}
    steps: list[StepPlan] = []
    before: tuple[int, ...] = ()
    passed = False
    for group in groups:
        here = []
        for letter in group:
            name = next(names)
            numbers[name] = len(steps)
            here.append(len(steps))
            pivot = letter.isupper()
            action = _call(service, name, KINDS[letter.lower()], retention, window)
            own = name in uses_self
            undo = None if passed or pivot or letter == "r" else _undo(service, name, action.kind, retention, own=own)
            used = tuple(numbers[other] for other in users.get(name, ""))
            steps.append(StepPlan(name, action, undo, before, pivot, passed, name in when, used))
        passed = passed or any(letter.isupper() for letter in group)
        before = tuple(here)
    behind = tuple(index for index, step in enumerate(steps) if step.pivot or step.post)
    for letter in offered:
        name = next(names)
        used = tuple(numbers[other] for other in users.get(name, ""))
        action = _call(service, name, KINDS[letter], retention, window)
        steps.append(StepPlan(name, action, after=behind, post=True, amendment=True, uses=used))
    return Plan("test", "shape", "d" * 64, tuple(steps), deadline, stalled_after)


def _call(service: str, name: str, kind: MethodKind, retention: timedelta | None, window: timedelta | None) -> CallPlan:
    guarded, keyed = kind is MethodKind.GUARDED, kind is MethodKind.KEYED
    return CallPlan(
        service,
        f"Do{name.upper()}",
        kind,
        window=window if keyed else None,
        retention=retention if guarded else None,
    )


def _undo(service: str, name: str, kind: MethodKind, retention: timedelta | None, *, own: bool) -> CallPlan:
    """Build a compensation: guarded with its action, or idempotent by state, as the checker asks."""
    guarded = kind is MethodKind.GUARDED
    of = MethodKind.GUARDED if guarded else MethodKind.IDEMPOTENT
    return CallPlan(service, f"Undo{name.upper()}", of, retention=retention if guarded else None, uses_self=own)
