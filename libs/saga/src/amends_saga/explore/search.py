"""Breadth-first search over worlds, so that the first path to a broken invariant is a shortest one.

Called by `amends explore` and the tests. Worlds are remembered by a 64-bit hash, paths as the numbers of the moves
taken, which is also the seed that replays one.
"""

import gc
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product

from amends_saga.explore.bounds import Bounds
from amends_saga.explore.moves import Moves, Rules, World
from amends_saga.explore.owners import Engine, ExpressionResults
from amends_saga.explore.participants import BrokenInvariant
from amends_saga.plan import Plan

STUCK = "the run waits for something that never comes"
PROGRESS_EVERY = 1_000


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken invariant with a shortest way to it."""

    step: str
    """The step whose effect is at fault; empty when none is."""
    text: str
    path: tuple[str, ...]
    """The moves that lead to it, for people."""
    seed: str
    """The same for `amends explore --seed`."""


@dataclass
class ExplorationResult:
    """The result of an exploration."""

    bounds: Bounds
    states: int = 0
    transitions: int = 0
    depth: int = 0
    complete: bool = True
    """False when the bound of states ended it."""
    ends: Counter[str] = field(default_factory=Counter)
    """COMPLETED, COMPENSATED, PARKED REASON: in how many states the run has come to this end."""
    violations: list[Violation] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Return whether everything within the bounds was seen and no invariant is broken."""
        return self.complete and not self.violations


def explore(
    plan: Plan,
    bounds: Bounds | None = None,
    *,
    engine: Engine | None = None,
    rules: Rules | None = None,
    progress: Callable[[int, int], None] | None = None,
    first_only: bool = False,
) -> ExplorationResult:
    """Walk every world within the bounds.

    `progress` is called with the number of states and the depth now and then. `first_only` stops at the first
    violation.
    """
    bounds = bounds or Bounds()
    result = ExplorationResult(bounds)
    with _no_collection():
        for expressions in _expressions(plan, bounds):
            moves = Moves(plan, bounds, engine or Engine(), rules or Rules(), expressions)
            _search(moves, expressions, result, progress, first_only)
            if result.violations and first_only:
                break
    return result


def replay_seed(
    plan: Plan, seed: str, bounds: Bounds | None = None, *, engine: Engine | None = None, rules: Rules | None = None
) -> tuple[str, ...]:
    """Return the moves of a seed as texts, and the invariants that they break. Raises ValueError for a bad seed."""
    text, _, numbers = seed.partition(":")
    if len(text) != len(plan.steps) or not set(text) <= set(_LETTERS.values()):
        raise ValueError("the seed belongs to a saga with another number of steps")
    meant = {letter: value for value, letter in _LETTERS.items()}
    expressions = tuple(meant[letter] for letter in text)
    moves = Moves(plan, bounds or Bounds(), engine or Engine(), rules or Rules(), expressions)
    world, texts = moves.first(), ["the run is asked for"]
    for number in numbers.split(".") if numbers else []:
        found = dict(enumerate(moves.next(world))).get(int(number) if number.isdigit() else -1)
        if found is None:
            raise ValueError(f"the seed has no move {number} here: it was made with other bounds or another saga")
        texts.append(found.text)
        texts += [f"!! {broken.text}" for broken in found.violations]
        world = found.world
    return tuple(texts)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Switch the garbage collector off: with millions of tuples and no cycles it takes a quarter of the time."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


_LETTERS: dict[bool | None, str] = {True: "1", False: "0", None: "x"}
"""How a seed writes what the expressions of a step say."""


def _expressions(plan: Plan, bounds: Bounds) -> Iterator[ExpressionResults]:
    """Yield the results of expressions: a step without `when` always runs, and at most one request fails."""
    whens = list(product(*((True, False) if step.has_when else (True,) for step in plan.steps)))
    yield from whens
    if bounds.failures:
        for index in range(len(plan.steps)):
            yield from ((*when[:index], None, *when[index + 1 :]) for when in whens if when[index])


class _Trail:
    """The moves taken to each world, by number."""

    def __init__(self) -> None:
        self._parents = array("q", [-1])
        self._moves = array("i", [-1])

    def add(self, parent: int, move: int) -> int:
        self._parents.append(parent)
        self._moves.append(move)
        return len(self._parents) - 1

    def numbers(self, node: int) -> list[int]:
        found = []
        while node > 0:
            found.append(self._moves[node])
            node = self._parents[node]
        return found[::-1]


def _search(
    moves: Moves,
    expressions: ExpressionResults,
    result: ExplorationResult,
    progress: Callable[[int, int], None] | None,
    first_only: bool,
) -> None:
    trail = _Trail()
    first = moves.first()
    seen = {hash(first)}
    frontier: deque[tuple[World, int, int]] = deque([(first, 0, 0)])
    result.states += 1
    while frontier:
        world, node, depth = frontier.popleft()
        result.depth = max(result.depth, depth)
        end = moves.phase(world)
        if end:
            result.ends[end] += 1
        elif moves.stuck(world):
            _found(result, moves, expressions, trail.numbers(node), (BrokenInvariant(-1, STUCK),))
        for number, move in enumerate(moves.next(world)):
            result.transitions += 1
            if move.violations:
                _found(result, moves, expressions, [*trail.numbers(node), number], move.violations)
                if first_only:
                    return
                continue
            mark = hash(move.world)
            if mark in seen:
                continue
            seen.add(mark)
            result.states += 1
            if progress is not None and result.states % PROGRESS_EVERY == 0:
                progress(result.states, depth)
            if result.states >= result.bounds.states:
                result.complete = False
                return
            frontier.append((move.world, trail.add(node, number), depth + 1))


def _found(
    result: ExplorationResult,
    moves: Moves,
    expressions: ExpressionResults,
    numbers: list[int],
    broken: tuple[BrokenInvariant, ...],
) -> None:
    """Keep the first, and so a shortest, path to each invariant and step."""
    known = {(violation.step, violation.text) for violation in result.violations}
    named = [(moves.name(step), text) for step, text in broken]
    new = [one for one in named if one not in known]
    if not new:
        return
    world, path = moves.first(), ["the run is asked for"]
    for number in numbers:
        move = next(move for i, move in enumerate(moves.next(world)) if i == number)
        path.append(move.text)
        world = move.world
    seed = "".join(_LETTERS[said] for said in expressions) + ":" + ".".join(map(str, numbers))
    result.violations += [Violation(step, text, tuple(path), seed) for step, text in new]
