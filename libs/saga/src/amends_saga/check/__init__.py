"""The checker: finds everything that can be known of a saga before it runs, all findings at once, with figures.

Shared by the CLI, CI, the operator and the orchestrator. Pure, and it never raises, whatever the text.
"""

from amends_saga.check.checker import CheckResult, SagaCheck, check, check_resources, check_saga
from amends_saga.check.choreographies import ChoreographyCheck, check_choreography
from amends_saga.check.figures import SagaFigures, StepFigures

__all__ = [
    "CheckResult",
    "ChoreographyCheck",
    "SagaCheck",
    "SagaFigures",
    "StepFigures",
    "check",
    "check_choreography",
    "check_resources",
    "check_saga",
]
