"""The saga engine: pure functions that fold a run's journal and decide what comes next.

`start` and `advance` are called by the owner of a run; `replay` makes the state of a run from its journal;
`check_resolution` says which decisions a person may take. The orchestrator, the explorer and the tests run these same
functions. The rules are those of docs/explanation/guarantees.md; each was model-checked before it was written here.
"""

from amends_saga.engine.answers import bounded
from amends_saga.engine.choices import Choice, choices
from amends_saga.engine.ledger import Ledger, UnreadableJournalError, replay
from amends_saga.engine.machine import advance, cancellable, start
from amends_saga.engine.resolve import check_resolution, resolutions
from amends_saga.engine.rules import awaited
from amends_saga.engine.state import Phase, RunState, StepRun, initial, stalled_since

__all__ = [
    "Choice",
    "Ledger",
    "Phase",
    "RunState",
    "StepRun",
    "UnreadableJournalError",
    "advance",
    "awaited",
    "bounded",
    "cancellable",
    "check_resolution",
    "choices",
    "initial",
    "replay",
    "resolutions",
    "stalled_since",
    "start",
]
