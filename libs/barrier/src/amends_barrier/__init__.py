"""The barrier that makes a Python gRPC service a safe participant of sagas."""

from amends_barrier.barrier import Barrier
from amends_barrier.before import before
from amends_barrier.events import action, compensation
from amends_barrier.methods import Guarded, guarded_methods
from amends_barrier.postgres import BROKEN, conflict, database_away
from amends_barrier.protocol import BarrierError, Reason
from amends_barrier.transaction import connection, savepoint

__all__ = [
    "BROKEN",
    "Barrier",
    "BarrierError",
    "Guarded",
    "Reason",
    "action",
    "before",
    "compensation",
    "conflict",
    "connection",
    "database_away",
    "guarded_methods",
    "savepoint",
]
