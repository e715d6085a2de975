"""Names the places of a call that an orchestrator process passes: where a test stops it, kills it, or waits for it.

The process writes these names down (`orchestrator_process`); tests use them.
"""

from dataclasses import dataclass

import grpc
from amends_saga.engine.events import Operation


@dataclass(frozen=True, slots=True)
class CallPlaces:
    """The places of one operation of a step."""

    step: str
    operation: str

    @property
    def sent(self) -> str:
        """The call is about to leave the process."""
        return f"call.sent:{self.step}:{self.operation}"

    @property
    def answered(self) -> str:
        """The call has its answer, and nothing has been made of it yet."""
        return f"call.answered:{self.step}:{self.operation}"

    def answer(self, code: grpc.StatusCode = grpc.StatusCode.OK, reason: str = "") -> str:
        """The call had this answer."""
        return f"answer:{self.step}:{self.operation}:{code.value[0]}:{reason}"


def action(step: str) -> CallPlaces:
    """The places of a step's action."""
    return CallPlaces(step, Operation.ACTION.value)


def compensation(step: str) -> CallPlaces:
    """The places of a step's compensation."""
    return CallPlaces(step, Operation.COMPENSATION.value)
