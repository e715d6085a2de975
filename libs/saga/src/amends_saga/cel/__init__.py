"""CEL behind an adapter: compiled against a saga's own pool, bounded, and with one error for all its ways to fail."""

from amends_saga.cel.environment import Checked, Environment, Problem, ProblemKind
from amends_saga.cel.runtime import Program

__all__ = ["Checked", "Environment", "Problem", "ProblemKind", "Program"]
