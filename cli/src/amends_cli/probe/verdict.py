"""The result of one question of the probe. Made by `cases`, printed by `amends probe`."""

from dataclasses import dataclass
from enum import StrEnum


class QuestionState(StrEnum):
    """The results that a question can have. Only HELD proves the promise."""

    HELD = "held"
    BROKEN = "not held"
    NOT_SHOWN = "not shown"
    """The situation did not come about, e.g. because the action never answered OK."""
    UNOBSERVED = "answers right, effects not observed"
    """Nothing was given to read the effects with."""


@dataclass(frozen=True, slots=True)
class QuestionResult:
    """One row of the table: a question and its result."""

    promise: int
    """1 to 5 as in docs/explanation/guarantees.md; 0 for the trailer that all answers carry."""
    question: str
    state: QuestionState
    detail: str = ""
    """What was seen instead; empty when it held."""


class PromiseBrokenError(Exception):
    """A promise does not hold. The text says what was seen."""


class NotShownError(Exception):
    """The situation that a promise is about could not be brought about. The text says why."""
