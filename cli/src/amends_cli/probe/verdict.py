"""What one question of the probe has shown. Made by `cases`, printed by `amends probe`."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How a promise came out. Only HELD proves it."""

    HELD = "held"
    BROKEN = "not held"
    NOT_SHOWN = "not shown"
    """The situation did not come about, e.g. because the action never answered OK."""
    UNOBSERVED = "answers right, effects not observed"
    """Nothing was given to read the effects with."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row of the table."""

    promise: int
    """1 to 5 as in docs/explanation/guarantees.md; 0 for the trailer that all answers carry."""
    question: str
    state: State
    detail: str = ""
    """What was seen instead; empty when it held."""


class Broken(Exception):
    """A promise does not hold. The text says what was seen."""


class NotShown(Exception):
    """The situation that a promise is about could not be brought about. The text says why."""
