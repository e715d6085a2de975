"""Pictures of what a run goes through: its states, a lost answer, and the void at the pivot. Used by `make pictures`.

Which state follows which is found by exploring sagas with the engine itself; only the words beside the arrows are ours.
"""

from collections import deque
from dataclasses import dataclass

from amends_saga.explore.bounds import Bounds
from amends_saga.explore.moves import Moves, Rules
from amends_saga.explore.owners import Engine
from amends_testkit.engine.shapes import shape

from pictures.drawing import Box, Drawing, wide_enough

SAGAS = ("g>P>g", "o>O>i")
"""A guarded saga and a plain one, with a pivot in the middle: together they reach every state."""

STATES = {
    "RUNNING": Box(40, 150, 170, 60, ("RUNNING", "goes forward"), "ours"),
    "PARKED": Box(470, 150, 190, 60, ("PARKED", "waits for a person"), "wait"),
    "COMPENSATING": Box(470, 295, 190, 60, ("COMPENSATING", "undoes what was done"), "ours"),
    "COMPLETED": Box(790, 50, 190, 60, ("COMPLETED", "every step has its effect"), "good"),
    "COMPENSATED": Box(790, 295, 190, 60, ("COMPENSATED", "no effect is left"), "good"),
}


@dataclass(frozen=True, slots=True)
class Arrow:
    """The shape of a drawn transition: the points it passes, and the text beside it, where and which way."""

    points: tuple[tuple[float, float], ...]
    words: str
    at: tuple[float, float]
    anchor: str = "middle"


ARROWS = {
    ("RUNNING", "COMPLETED"): Arrow(((125, 150), (125, 80), (790, 80)), "the last step is ok", (460, 72)),
    ("RUNNING", "PARKED"): Arrow(((210, 170), (470, 170)), "in doubt, or refused past the pivot", (340, 162)),
    ("PARKED", "RUNNING"): Arrow(((470, 192), (210, 192)), "a person says retry or skip", (340, 209)),
    ("RUNNING", "COMPENSATING"): Arrow(
        ((125, 210), (125, 325), (470, 325)), "refused, too late, or cancelled before the pivot", (300, 344)
    ),
    ("PARKED", "COMPENSATING"): Arrow(((530, 210), (530, 295)), "a person says compensate or retry", (522, 257), "end"),
    ("COMPENSATING", "PARKED"): Arrow(((600, 295), (600, 210)), "an undo is refused", (608, 257), "start"),
    ("COMPENSATING", "COMPENSATED"): Arrow(((660, 325), (790, 325)), "all is undone", (725, 317)),
}


def life() -> Drawing:
    """Draw the states of a run and every transition that an exploration of SAGAS meets.

    Raises KeyError when the engine has a transition that ARROWS does not draw.
    """
    drawing = Drawing(1000, 380, "The states of a run, and what leads from one to the other")
    drawing.text(20, 28, "Every run ends in one of the two states on the right, or waits where a person can see it.")
    for pair in sorted({pair for text in SAGAS for pair in transitions(text)}):
        arrow = ARROWS[pair]
        drawing.line(arrow.points)
        drawing.text(*arrow.at, arrow.words, anchor=arrow.anchor, faint=True)
    for box in STATES.values():
        drawing.box(box)
    return drawing


def transitions(text: str) -> set[tuple[str, str]]:
    """Return which state of a run follows which on disk, over all interleavings of the saga of that shape."""
    plan = shape(text, deadline=None)
    bounds = Bounds(owners=1, crashes=0)
    moves = Moves(plan, bounds, Engine(), Rules(), (True,) * len(plan.steps))
    first = moves.first()
    seen, frontier, found = {first}, deque([first]), set()
    while frontier:
        world = frontier.popleft()
        before = _state(moves, world.disk)
        for move in moves.next(world):
            after = _state(moves, move.world.disk)
            if before and after != before:
                found.add((before, after))
            if move.world not in seen:
                seen.add(move.world)
                frontier.append(move.world)
    return found


def _state(moves: Moves, disk: int) -> str:
    """Return the state that a journal tells; empty before the run's first record."""
    state = moves.owners.disks[disk].state
    if state.seq == 0:
        return ""
    return "PARKED" if state.parked is not None else str(state.phase)


@dataclass(frozen=True, slots=True)
class Message:
    """One arrow of a sequence: from one lifeline to another, `lost` when it never arrives; or a note at one of them."""

    start: int
    end: int
    text: str
    lost: bool = False


def _sequence(title: str, lifelines: tuple[str, ...], messages: tuple[Message, ...], *, width: float = 1000) -> Drawing:
    drawing = Drawing(width, 110 + len(messages) * 42, title)
    step = width / len(lifelines)
    places = [step * (number + 0.5) for number in range(len(lifelines))]
    bottom = drawing.height - 14
    for x, name in zip(places, lifelines, strict=True):
        drawing.line([(x, 58), (x, bottom)], arrow=False, dashed=True, faint=True)
        drawing.box(Box(x - 85, 18, 170, 40, (name,), "ours" if name == "orchestrator" else "plain"))
    for number, message in enumerate(messages):
        _draw(drawing, places, message, 92 + number * 42)
    return drawing


def _draw(drawing: Drawing, places: list[float], message: Message, y: float) -> None:
    start, end = places[message.start], places[message.end]
    if message.start == message.end:
        drawing.box(Box(start - 85, y - 18, wide_enough([message.text]), 28, (message.text,), "wait"))
        return
    middle = (start + end) / 2
    drawing.text(middle, y - 6, message.text, anchor="middle")
    stop = middle + (end - start) * 0.18 if message.lost else end
    drawing.line([(start, y), (stop, y)])
    if message.lost:
        drawing.cross(stop, y)


def lost_answer() -> Drawing:
    """Draw what becomes of a lost answer at a guarded method."""
    return _sequence(
        "A lost answer of a guarded method: the same key brings the same answer",
        ("orchestrator", "payments, guarded", "its database"),
        (
            Message(0, 1, "Charge, key k"),
            Message(1, 2, "the charge and row k, in one transaction"),
            Message(1, 0, "ok", lost=True),
            Message(0, 1, "Charge, key k, again"),
            Message(1, 2, "row k is there"),
            Message(1, 0, "the stored answer: ok"),
            Message(0, 0, "The card was charged once."),
        ),
    )


def lost_answer_plain() -> Drawing:
    """Draw what becomes of a lost answer at a plain method."""
    return _sequence(
        "A lost answer of a plain method: only a person can find out",
        ("orchestrator", "hotel, plain", "its database"),
        (
            Message(0, 1, "Book"),
            Message(1, 2, "the booking"),
            Message(1, 0, "ok", lost=True),
            Message(0, 0, "Booked or not? A second call could book twice, a cancellation could be wrong."),
            Message(0, 0, "The run is PARKED: PLAIN_IN_DOUBT. A person looks and decides."),
        ),
    )


def void_at_the_pivot() -> Drawing:
    """Draw how a run turns back at a guarded pivot that did not answer."""
    return _sequence(
        "The void: how a run turns back at a pivot that did not answer",
        ("orchestrator", "shipping, guarded", "its database"),
        (
            Message(0, 1, "Book, key k", lost=True),
            Message(0, 0, "No answer, whatever the policy allows."),
            Message(0, 1, "void of key k"),
            Message(1, 2, "row k: void, for ever"),
            Message(1, 0, "voided: it never ran"),
            Message(0, 0, "The steps before are compensated."),
            Message(0, 1, "the lost Book arrives after all"),
            Message(1, 0, "ABORTED, STEP_FENCED: no effect"),
        ),
    )
