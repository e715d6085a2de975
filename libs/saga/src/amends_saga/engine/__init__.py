"""The saga engine: pure functions that fold a run's journal and decide what comes next.

`advance` is what an owner of a run calls; `replay` makes the state of a run from its journal; `check_resolution`
says what a person may do. The orchestrator, the explorer and the tests run these same functions. The rules are
those of docs/explanation/guarantees.md; each was model-checked before it was written here.
"""

from amends_saga.engine.advance import advance
from amends_saga.engine.replay import UnreadableJournalError, replay
from amends_saga.engine.resolve import check_resolution, resolutions
from amends_saga.engine.state import RunState, StepRun, initial, stalled_since

__all__ = [
    "RunState",
    "StepRun",
    "UnreadableJournalError",
    "advance",
    "check_resolution",
    "initial",
    "replay",
    "resolutions",
    "stalled_since",
]
