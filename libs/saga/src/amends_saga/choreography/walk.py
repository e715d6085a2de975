"""Every path that a choreography can take: which events can have come, and what is wrong where nothing more follows.

Breadth first over how often each event has come, so that the path in a finding is a shortest one. Called by the
checker.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from amends_saga.choreography.flow import demands
from amends_saga.choreography.plan import ChoreographyPlan
from amends_saga.definition.resources import FlowEnding

MAX_STATES = 20_000
"""The most sets of events that are looked at."""
MAX_ANSWERS = 200_000
"""The most answers that are looked at in all of them, which takes a second."""

_Counts = frozenset[tuple[str, int]]


@dataclass(slots=True)
class Walked:
    """What all paths of a choreography have shown."""

    reached: set[str] = field(default_factory=set)
    """Events that can happen."""
    endless: tuple[str, ...] | None = None
    """A shortest path after which nothing more can come, and that has no end."""
    not_undone: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Events with an effect that is there at the end of a path that ends undone, and such a path."""
    rivals: tuple[tuple[str, ...], str, str] | None = None
    """A shortest path after which either of two events of different participants may end the flow, one of them well."""
    complete: bool = True
    """False when there are too many paths."""
    states: int = 0
    """How many sets of events can have come."""


def walk(plan: ChoreographyPlan) -> Walked:
    """Walk every path from the event that begins a flow."""
    found = Walked({plan.start})
    first: _Counts = frozenset({(plan.start, 1)})
    paths: dict[_Counts, tuple[str, ...]] = {first: (plan.start,)}
    waiting = deque([first])
    answers = 0
    while waiting:
        state = waiting.popleft()
        counts, path = dict(state), paths[state]
        answers += sum(1 + len(plan.events[event].answers) for event in counts)
        if answers > MAX_ANSWERS:
            found.complete = False
            return found
        following = sorted(set(_next(plan, counts)))
        if not following:
            _ended(plan, counts, path, found)
        if found.rivals is None and not any(map(plan.is_end, counts)):
            found.rivals = _rivals(plan, path, following)
        for event in following:
            found.reached.add(event)
            after = frozenset((counts | {event: counts.get(event, 0) + 1}).items())
            if after in paths:
                continue
            if len(paths) == MAX_STATES:
                found.complete = False
                return found
            paths[after] = (*path, event)
            waiting.append(after)
    found.states = len(paths)
    return found


def _next(plan: ChoreographyPlan, counts: Mapping[str, int]) -> Iterator[str]:
    """Yield the events that can come next."""
    ended = any(map(plan.is_end, counts))
    for demand in demands(plan, counts):
        for event in demand.events:
            if counts.get(event, 0) < plan.bound(event) and not (ended and plan.is_end(event)):
                yield event


def _rivals(
    plan: ChoreographyPlan, path: tuple[str, ...], following: Sequence[str]
) -> tuple[tuple[str, ...], str, str] | None:
    ends = [plan.events[event] for event in following if plan.is_end(event)]
    for well in ends:
        for undone in ends:
            if well.ends is FlowEnding.WELL and undone.ends is FlowEnding.UNDONE and well.by != undone.by:
                return path, well.name, undone.name
    return None


def _ended(plan: ChoreographyPlan, counts: Mapping[str, int], path: tuple[str, ...], found: Walked) -> None:
    """Judge a path after which nothing more comes."""
    endings = {plan.events[event].ends for event in counts} - {None}
    if not endings:
        found.endless = found.endless or path
    if FlowEnding.UNDONE not in endings:
        return
    undoing = {event.undo.event for event in plan.events.values() if event.undo is not None}
    for name in counts:
        event = plan.events[name]
        done = event.effect and event.ends is None and name not in undoing
        if done and (event.undo is None or event.undo.event not in counts):
            found.not_undone.setdefault(name, path)
