"""The laws of events, by the number that findings give them.

Used by `amends audit`, which looks for them in databases and logs, and by the simulation, which looks for them in every
world.
"""

from enum import StrEnum


class EventLaw(StrEnum):
    """What must be so of events. The numbers are never used again."""

    PUBLISHED = "L1"
    """A committed change has its event in the log, or in the outbox; a change that was rolled back has none."""
    ORDER = "L2"
    """The first occurrences of a key's events are in the log in the order of their commits."""
    ONE_EFFECT = "L3"
    """A consumer has handled each event up to its position once, or it is parked, or a person had it left out."""
    EFFECTS_IN_ORDER = "L4"
    """A consumer has handled the events of a key in the order of the log."""
    POSITION = "L5"
    """The log goes on where a consumer is; where it does not, the consumer stands still and says so."""
    SEEN = "L6"
    """Nothing is left: not in the outbox, and not parked."""
    END = "L7"
    """The world of a simulation goes on."""

    def broken(self, what: str) -> str:
        """Return a sentence for people: the law by number and name, and what breaks it."""
        return f"{self.value} ({self.name.lower().replace('_', ' ')}): {what}"
