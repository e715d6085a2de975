"""Choreographies as data: who answers which event, where a flow stands, and every path that it can take. Pure.

The checker walks the paths; the monitor judges flows by the same rules.
"""

from amends_saga.choreography.contracts import (
    EventContract,
    EventContracts,
    message_types,
    needed_files,
    read_contracts,
)
from amends_saga.choreography.flow import FlowJudgement, FlowState, Happened, MissingEvent, judge
from amends_saga.choreography.plan import ChoreographyPlan, EventPlan, plan_of

__all__ = [
    "ChoreographyPlan",
    "EventContract",
    "EventContracts",
    "EventPlan",
    "FlowJudgement",
    "FlowState",
    "Happened",
    "MissingEvent",
    "judge",
    "message_types",
    "needed_files",
    "plan_of",
    "read_contracts",
]
