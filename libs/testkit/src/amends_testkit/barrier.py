"""The five promises of the barrier in memory, for fake participants. The real one is `amends_barrier`.

Called by `amends_testkit.participant`. It speaks the same metadata and gives the same reasons, so that the
orchestrator's tests need no database of a participant.
"""

from dataclasses import dataclass, field

FENCED = "STEP_FENCED"
REUSED = "KEY_REUSED"
UNKNOWN = "ACTION_UNKNOWN"


@dataclass(slots=True)
class ModelRow:
    """The record of one operation under one key."""

    digest: bytes | None
    """The request; None for a void."""
    response: bytes | None
    """None for a void."""


class ModelRefusedError(Exception):
    """The barrier refuses. Carries the reason."""


@dataclass(slots=True)
class MemoryBarrier:
    """Rows by (idempotency key, operation)."""

    rows: dict[tuple[str, str], ModelRow] = field(default_factory=dict)

    def before(self, key: str, operation: str, outcome: str, request: bytes) -> bytes | None:
        """Return the answer to give without the handler; None when the handler is to run. Raises ModelRefusedError."""
        row = self.rows.get((key, operation))
        if operation == "action":
            undone = self.rows.get((key, "compensation"))
            if undone is not None and undone.response is not None:
                raise ModelRefusedError(FENCED)
        elif row is None:
            action = self.rows.get((key, "action"))
            if action is not None and action.response is not None:
                return None
            if outcome == "ok":
                raise ModelRefusedError(UNKNOWN)
            self.rows[key, "action"] = ModelRow(None, None)
            self.rows[key, operation] = ModelRow(request, b"")
            return b""
        if row is None:
            return None
        if row.response is None:
            raise ModelRefusedError(FENCED)
        if row.digest != request:
            raise ModelRefusedError(REUSED)
        return row.response

    def after(self, key: str, operation: str, request: bytes, response: bytes) -> None:
        """Record that the handler had its effect."""
        self.rows[key, operation] = ModelRow(request, response)

    def void(self, key: str, operation: str) -> bytes | None:
        """Make sure that an operation never runs. Return the stored response when it ran already, else None.

        Voiding a compensation fences its action too, as the compensation itself would have.
        """
        self.rows.setdefault((key, "action"), ModelRow(None, None))
        return self.rows.setdefault((key, operation), ModelRow(None, None)).response
