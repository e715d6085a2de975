"""The frame of every benchmark: rounds of subject and peer that alternate, and the ratio of each pair.

Absolute figures of a small shared machine say little and change from hour to hour; the two sides of one pair ran within
seconds of each other, so their ratio says more. Called by the modules of the benchmarks and by `command`.
"""

import statistics
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from rich.progress import Progress

Round = Callable[[], Awaitable[Mapping[str, Any]]]
"""One round of one side: its figures, among them the one that is compared."""


class Judgement(StrEnum):
    """The judgement of the rounds: whether they meet the target."""

    MET = "met"
    NOT_SHOWN = "not shown"
    """The rounds are on both sides of the target."""
    MISSED = "missed"
    REPORTED = "reported"
    """There is no target."""


@dataclass(frozen=True, slots=True)
class SuiteOptions:
    """The options of a measurement: how many rounds, and how long."""

    rounds: int = 9
    duration: timedelta = timedelta(seconds=2.5)
    quick: bool = False

    @property
    def warm_up(self) -> timedelta:
        """Before the first round, of each side."""
        return self.duration / 2


@dataclass(slots=True)
class Comparison:
    """The rounds of a subject and of its peer, and the ratio between them."""

    name: str
    """The benchmark, and what of it: `claims-vs-queue scaling`."""
    subject: str
    peer: str
    unit: str
    target: float | None
    at_most: bool = False
    """The target is an upper bound: the ratio is one of times."""
    subject_rounds: list[dict[str, Any]] = field(default_factory=list)
    peer_rounds: list[dict[str, Any]] = field(default_factory=list)
    key: str = "rate"

    @property
    def ratios(self) -> list[float]:
        """Subject by peer, round by round."""
        pairs = zip(self.subject_rounds, self.peer_rounds, strict=True)
        return [float(ours[self.key]) / float(theirs[self.key]) for ours, theirs in pairs]

    @property
    def median(self) -> float:
        """Return the median of the rounds' ratios."""
        return statistics.median(self.ratios)

    @property
    def verdict(self) -> Judgement:
        """Return MET when every round meets the target, MISSED when none does, NOT_SHOWN else; REPORTED without one."""
        if self.target is None:
            return Judgement.REPORTED
        good = [ratio <= self.target if self.at_most else ratio >= self.target for ratio in self.ratios]
        if all(good):
            return Judgement.MET
        return Judgement.NOT_SHOWN if any(good) else Judgement.MISSED

    @property
    def absurd(self) -> bool:
        """Return whether the ratio is worse than half of the target: then something is broken, not slow."""
        if self.target is None:
            return False
        return self.median > 2 * self.target if self.at_most else self.median < self.target / 2

    def json(self) -> dict[str, Any]:
        """Return the comparison as JSON, in the form of the kept results."""
        return {
            "name": self.name,
            "subject": self.subject,
            "peer": self.peer,
            "unit": self.unit,
            "target": self.target,
            "at_most": self.at_most,
            "ratio": {"median": self.median, "min": min(self.ratios), "max": max(self.ratios)},
            "subject_median": statistics.median(float(one[self.key]) for one in self.subject_rounds),
            "peer_median": statistics.median(float(one[self.key]) for one in self.peer_rounds),
            "verdict": self.verdict,
            "subject_rounds": self.subject_rounds,
            "peer_rounds": self.peer_rounds,
        }


async def alternate(comparison: Comparison, subject: Round, peer: Round, rounds: int, progress: Progress) -> Comparison:
    """Fill a comparison. The side that begins changes from round to round, so that no side profits from the other."""
    bar = progress.add_task(f"{comparison.name}: {comparison.subject} / {comparison.peer}", total=rounds)
    for number in range(rounds):
        if number % 2 == 0:
            theirs, ours = await peer(), await subject()
        else:
            ours, theirs = await subject(), await peer()
        comparison.subject_rounds.append(dict(ours))
        comparison.peer_rounds.append(dict(theirs))
        progress.update(bar, advance=1, description=f"{comparison.name}: ratio {comparison.median:.2f}")
    return comparison
