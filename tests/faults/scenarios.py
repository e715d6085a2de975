"""The three ways of an order, and every place that a process comes by on each: written down, not found by trying."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Scenario:
    """One way. `calls` are those the orchestrator makes, in order, with what the participant does about them."""

    name: str
    input: dict[str, str]
    state: str
    calls: tuple[tuple[str, str], ...]
    records: tuple[str, ...]
    effects: tuple[str, ...]

    @property
    def told(self) -> tuple[str, ...]:
        """What a webhook is told of the run."""
        return ("RunStarted", *(["RunTurnedBack"] if "decided" in self.records else []), "RunEnded")

    def of_orchestrator(self) -> list[str]:
        """Before and after the start, every record and every call."""
        points = ["start.asked", "start.acknowledged"]
        points += [f"journal.{when}:{record}" for record in self.records for when in ("sent", "committed")]
        points += [f"call.{when}:{call}" for call, _ in self.calls for when in ("sent", "answered")]
        return points

    def of_participants(self) -> list[str]:
        """Before and after each statement of the barrier, and after the handler."""
        return [f"{point}:{call}" for call, does in self.calls for point in MADE[does]]


INSERT, COMMIT = ("insert.sent", "insert.answered"), ("commit.sent", "commit.answered")
MADE = {
    "effect": (*INSERT, "handler.done", *COMMIT),
    "rejected": (*INSERT, "handler.done"),
    "nothing to undo": (*INSERT, *COMMIT),
    "void": INSERT,
}


def _answered(*calls: str) -> Iterator[str]:
    for call in calls:
        yield f"answered:{call}"


SCENARIOS = (
    Scenario(
        "accepted",
        {},
        "COMPLETED",
        (
            ("reserve:action", "effect"),
            ("charge:action", "effect"),
            ("ship:action", "effect"),
            ("confirm:action", "effect"),
        ),
        (
            "started",
            *_answered("reserve:action", "charge:action"),
            "intent:ship",
            *_answered("ship:action", "confirm:action"),
            "ended",
        ),
        ("reserve:action", "charge:action", "ship:action", "confirm:action"),
    ),
    Scenario(
        "card declined",
        {"card": "tok_declined"},
        "COMPENSATED",
        (
            ("reserve:action", "effect"),
            ("charge:action", "rejected"),
            ("charge:compensation", "nothing to undo"),
            ("reserve:compensation", "effect"),
        ),
        (
            "started",
            *_answered("reserve:action", "charge:action"),
            "decided",
            *_answered("charge:compensation", "reserve:compensation"),
            "ended",
        ),
        ("reserve:action", "reserve:compensation"),
    ),
    Scenario(
        "no slot",
        {"country": "AT"},
        "COMPENSATED",
        (
            ("reserve:action", "effect"),
            ("charge:action", "effect"),
            ("ship:action", "rejected"),
            ("ship:void", "void"),
            ("charge:compensation", "effect"),
            ("reserve:compensation", "effect"),
        ),
        (
            "started",
            *_answered("reserve:action", "charge:action"),
            "intent:ship",
            *_answered("ship:action", "ship:void"),
            "decided",
            *_answered("charge:compensation", "reserve:compensation"),
            "ended",
        ),
        ("reserve:action", "charge:action", "charge:compensation", "reserve:compensation"),
    ),
)
