"""A real Postgres without a container engine or root, and the processes around it.

Called by `amends dev`, the demo, the benchmarks and the fixtures of `amends_testkit`. Never part of a deployment.
"""

from amends_embedded.postgres import Postgres, PostgresAlreadyRunning, PostgresError
from amends_embedded.process import Child, ChildDied, Children, ReportTimeout

__all__ = [
    "Child",
    "ChildDied",
    "Children",
    "Postgres",
    "PostgresAlreadyRunning",
    "PostgresError",
    "ReportTimeout",
]
