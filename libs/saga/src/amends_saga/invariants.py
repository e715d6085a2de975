"""The invariants of runs, by name and by the number that documents and findings give them.

Used by `audit`, which looks for them in databases, and by the simulation, which looks for them in every world.
"""

from enum import StrEnum


class Invariant(StrEnum):
    """What must be so of every run. The numbers are never used again; there is no I8 any more."""

    TERMINATION = "I1"
    """A run ends, is parked, or is shown as stalled."""
    UNDONE = "I2"
    """No effect stands of a run that is COMPENSATED."""
    ORDER = "I3"
    """Steps are undone in reverse order, and nothing is done after its undo."""
    ONE_EFFECT = "I4"
    """No step has its effect twice, and none is undone twice."""
    COMPLETENESS = "I5"
    """Each step of a run that is COMPLETED has its effect, with the response that the journal has."""
    JOURNAL = "I6"
    """The journal has no gap, and says what the run's row says."""
    FENCING = "I7"
    """No owner writes after another one has taken the run over."""
    START = "I9"
    """There is one run for each key of a namespace."""
    BULKHEAD = "I10"
    """No more calls are under way than the policy allows."""
    REPLAY = "I11"
    """A journal always gives the same state, and records are read as they were written."""

    def broken(self, what: str) -> str:
        """Return a sentence for people: the invariant by number and name, and what breaks it."""
        return f"{self.value} ({self.name.lower().replace('_', ' ')}): {what}"
