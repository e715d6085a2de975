"""A real Postgres, NATS and Valkey server without a container engine or root, and the processes around them.

Called by `amends dev`, the demo, the benchmarks and the fixtures of `amends_testkit`. Never part of a deployment.
"""

from amends_embedded.nats import Nats, NatsError
from amends_embedded.postgres import Postgres, PostgresAlreadyRunningError, PostgresError
from amends_embedded.process import Child, ChildDiedError, Children, ReportTimeoutError
from amends_embedded.valkey import Valkey, ValkeyError

__all__ = [
    "Child",
    "ChildDiedError",
    "Children",
    "Nats",
    "NatsError",
    "Postgres",
    "PostgresAlreadyRunningError",
    "PostgresError",
    "ReportTimeoutError",
    "Valkey",
    "ValkeyError",
]
