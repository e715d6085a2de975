"""Tries every order of events of a small saga, with the same engine that the orchestrator runs.

`explore` takes a plan and bounds and returns what it saw: how many states, which ends, and for every broken invariant a
shortest path. Called by `amends explore` and by the tests that break the engine on purpose.
"""

from amends_saga.explore.bounds import Bounds
from amends_saga.explore.search import ExplorationResult, Violation, explore, replay_seed

__all__ = ["Bounds", "ExplorationResult", "Violation", "explore", "replay_seed"]
