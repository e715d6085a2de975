"""Where one flow of a choreography stands: a pure function of the events that have come, in whatever order.

Topics have no order between them, and an event may come long after another that it caused. So nothing here depends on
the order in which events are seen; only the times at which they happened say what is due. The walk over all paths asks
the same functions. Called by the monitor for each flow that has a new event.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from amends_saga.choreography.plan import ChoreographyPlan
from amends_saga.definition.resources import FlowEnding


@dataclass(frozen=True, slots=True)
class Happened:
    """One event of a flow, each of which is given once."""

    event: str
    at: datetime


class FlowState(StrEnum):
    """Where a flow is, apart from the clock."""

    RUNNING = "running"
    ENDED_WELL = "ended well"
    ENDED_UNDONE = "ended undone"
    CONTRADICTORY = "contradictory"


@dataclass(frozen=True, slots=True)
class MissingEvent:
    """An event that is expected."""

    events: tuple[str, ...]
    """Any one of them will do."""
    by: str
    upon: str
    """The event that it answers, or upon which it undoes; empty when it is the one that begins the flow."""
    due_at: datetime


@dataclass(frozen=True, slots=True)
class FlowJudgement:
    """Where a flow stands."""

    state: FlowState
    missing: tuple[MissingEvent, ...]
    """The first due first."""
    contradiction: str = ""
    """What excludes what, for people; empty unless CONTRADICTORY."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What is expected after the events that have come."""

    by: str
    events: tuple[str, ...]
    triggers: Mapping[str, timedelta]
    """The events that make it due, each with the time that it leaves."""
    more: int
    """How many more of them are expected."""


def demands(plan: ChoreographyPlan, counts: Mapping[str, int]) -> Iterator[Demand]:
    """Yield what is still expected when each event has come as often as `counts` says."""
    endings = {plan.events[event].ends for event, count in counts.items() if count and plan.is_end(event)}
    if FlowEnding.UNDONE not in endings:
        for (by, events), triggers in _groups(plan, counts).items():
            if endings and all(map(plan.is_end, events)):
                continue  # one end excludes the others
            came = sum(counts.get(event, 0) for event in events) - (plan.start in events)  # that one answers nothing
            asked = sum(min(counts[event], plan.bound(event)) for event in triggers)
            needed = min(asked, _most(plan, events))
            if came < needed:
                yield Demand(by, events, triggers, needed - came)
    yield from _undoing(plan, counts)


def _groups(
    plan: ChoreographyPlan, counts: Mapping[str, int]
) -> dict[tuple[str, tuple[str, ...]], dict[str, timedelta]]:
    """Return the answers that are asked for: one that stands at several events is one.

    Those of a participant that have an event in common that may be repeated are counted together: nobody can tell
    which of them it answers.
    """
    groups: dict[tuple[str, tuple[str, ...]], dict[str, timedelta]] = {}
    for name, event in plan.events.items():
        for answer in event.answers if counts.get(name) else ():
            events, triggers = set(answer.events), {name: answer.within}
            for by, others in list(groups):
                asked = groups[by, others]
                repeated = name not in asked and any(plan.bound(one) > 1 for one in events.intersection(others))
                if by == answer.by and (repeated or events == set(others)):
                    triggers = groups.pop((by, others)) | triggers
                    events.update(others)
            groups[answer.by, tuple(sorted(events))] = triggers
    return groups


def _most(plan: ChoreographyPlan, events: Sequence[str]) -> int:
    """Return how often one of several events can come: once, unless one of them may be repeated."""
    bounds = [plan.bound(event) for event in events]
    return sum(bounds) if max(bounds) > 1 else 1


def _undoing(plan: ChoreographyPlan, counts: Mapping[str, int]) -> Iterator[Demand]:
    for name, event in plan.events.items():
        undo = event.undo
        if undo is None or not counts.get(name) or counts.get(undo.event):
            continue
        triggers = {one: undo.within for one in sorted(undo.upon) if counts.get(one)}
        if triggers:
            yield Demand(event.by, (undo.event,), triggers, 1)


def judge(plan: ChoreographyPlan, happened: Sequence[Happened]) -> FlowJudgement:
    """Return where a flow with these events stands. Events that the plan does not have count for nothing."""
    known = sorted((one for one in happened if one.event in plan.events), key=lambda one: (one.at, one.event))
    counts = Counter(one.event for one in known)
    missing = [_missing(demand, known) for demand in demands(plan, counts)]
    if known and plan.start not in counts:
        missing.append(MissingEvent((plan.start,), plan.events[plan.start].by, "", known[0].at))
    missing.sort(key=lambda one: (one.due_at, one.events))
    wrong = _contradiction(plan, counts)
    if wrong:
        return FlowJudgement(FlowState.CONTRADICTORY, tuple(missing), wrong)
    endings = {plan.events[event].ends for event in counts} - {None}
    if missing or not endings:
        return FlowJudgement(FlowState.RUNNING, tuple(missing))
    return FlowJudgement(FlowState.ENDED_UNDONE if FlowEnding.UNDONE in endings else FlowState.ENDED_WELL, ())


def _missing(demand: Demand, known: Sequence[Happened]) -> MissingEvent:
    """Return what is missing, and until when: of several that ask for one event the last counts."""
    asked = [one for one in known if one.event in demand.triggers]
    upon = asked[-min(demand.more, len(asked))]
    return MissingEvent(demand.events, demand.by, upon.event, upon.at + demand.triggers[upon.event])


def _contradiction(plan: ChoreographyPlan, counts: Mapping[str, int]) -> str:
    ends = sorted(event for event in counts if plan.is_end(event))
    if len({plan.events[event].ends for event in ends}) > 1:
        return f"It has ended well and undone: {' and '.join(map(short, ends))}."
    for event, count in sorted(counts.items()):
        if count > plan.bound(event):
            return f"{short(event)} has happened {count} times, and may happen at most {plan.bound(event)}."
    return ""


def short(event: str) -> str:
    """Return the name of an event's message without its package."""
    return event.rpartition(".")[2]
