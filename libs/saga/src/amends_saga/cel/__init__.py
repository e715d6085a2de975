"""CEL behind an adapter: compiled against a saga's own pool, limited in cost, with one error class for all failures."""

from amends_saga.cel.environment import Checked, Environment, Problem, ProblemKind
from amends_saga.cel.runtime import Program

__all__ = ["Checked", "Environment", "Problem", "ProblemKind", "Program"]
