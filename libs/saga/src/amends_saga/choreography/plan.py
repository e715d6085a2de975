"""A choreography as the monitor and the walk over its paths need it: names and times, no places in a text.

Made of a Choreography in which the checker has found no error, or none that matters to a walk.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from amends_saga.definition.resources import Choreography, DescribedEvent, FlowEnding


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """One of several events, which a participant publishes after another event."""

    by: str
    events: tuple[str, ...]
    within: timedelta


@dataclass(frozen=True, slots=True)
class UndoPlan:
    """The event that says that an effect is undone."""

    event: str
    upon: frozenset[str]
    """Each of these makes it due."""
    within: timedelta


@dataclass(frozen=True, slots=True)
class EventPlan:
    """An event, and what follows from it."""

    name: str
    by: str
    """The participant that publishes it."""
    answers: tuple[AnswerPlan, ...]
    undo: UndoPlan | None
    effect: bool
    at_most: int
    ends: FlowEnding | None


@dataclass(frozen=True, slots=True)
class ChoreographyPlan:
    """A choreography."""

    namespace: str
    name: str
    key: str
    start: str
    where: Mapping[str, str]
    """Fields of the start's event, and their values as JSON of protobuf has them."""
    events: Mapping[str, EventPlan]

    def bound(self, event: str) -> int:
        """Return how often an event may happen in one flow."""
        return self.events[event].at_most

    def is_end(self, event: str) -> bool:
        """Return whether an event ends a flow."""
        return self.events[event].ends is not None


def plan_of(choreography: Choreography) -> ChoreographyPlan:
    """Return the plan of a choreography. What names no described event is left out: there is a finding then."""
    known = {one.event.name for one in choreography.events}
    publishers = {event.name: one.name for one in choreography.participants for event in one.publishes}
    undone = frozenset(one.event.name for one in choreography.events if one.ends is FlowEnding.UNDONE)
    events = {one.event.name: _event(one, known, publishers, undone) for one in choreography.events}
    where = {key.value: value.value for key, value in choreography.where}
    metadata = choreography.metadata
    return ChoreographyPlan(metadata.namespace, metadata.name, choreography.key, choreography.start.name, where, events)


def _event(
    described: DescribedEvent, known: set[str], publishers: Mapping[str, str], undone: frozenset[str]
) -> EventPlan:
    answers = []
    for answer in described.answers:
        events = tuple(event.name for event in answer.events if event.name in known)
        if events:
            answers.append(AnswerPlan(answer.by, events, answer.within))
    undo = None
    given = described.undone_by
    if given is not None and given.event.name in known:
        upon = undone if given.upon is None else frozenset(one.name for one in given.upon)
        undo = UndoPlan(given.event.name, upon & known, given.within)
    name = described.event.name
    return EventPlan(
        name,
        publishers.get(name, ""),
        tuple(answers),
        undo,
        described.effect,
        described.at_most or 1,
        described.ends,
    )
