"""The meaning of Postgres errors: whether a second attempt helps, and whether the session may be used again.

Used by the barrier, and by the chassis for methods that are not guarded.
"""

import asyncpg

# Connection exception, invalid authorisation (a password that is being changed), insufficient resources, operator
# intervention (shutdown, cancelled, time-outs).
_AWAY_CLASSES = frozenset({"08", "28", "53", "57"})
# read_only_sql_transaction (a failover) and idle_in_transaction_session_timeout.
_AWAY = frozenset({"25006", "25P03"})
# Transaction rollback (serialisation failures, deadlocks), and lock_not_available.
_CONFLICT_CLASS = "40"
_LOCK_NOT_AVAILABLE = "55P03"
_READ_ONLY = "25006"
_OVER_CLASSES = frozenset({"08", "28"})
_SHUTDOWN = "57P0"

BROKEN = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""The errors that asyncpg raises when a connection breaks, at any time."""


def database_away(error: BaseException) -> bool:
    """Return whether `error` of asyncpg means that Postgres is away, going or coming back, so that trying again helps.

    An OSError does not say which connection failed: only code that has just asked for one knows.
    """
    if isinstance(error, asyncpg.InternalClientError):
        return True  # the server was ending the session while asyncpg was in the middle of something
    if isinstance(error, asyncpg.InterfaceError):  # asyncpg has no class for it: wrong arguments are the same class
        return "clos" in str(error) or "released" in str(error)
    state = sqlstate(error)
    return state[:2] in _AWAY_CLASSES or state in _AWAY


def conflict(error: BaseException) -> bool:
    """Return whether a transaction lost against a concurrent one and was rolled back, so that trying again helps."""
    state = sqlstate(error)
    return state[:2] == _CONFLICT_CLASS or state == _LOCK_NOT_AVAILABLE


def session_over(error: BaseException | None) -> bool:
    """Return whether the session that `error` came from, directly or as a cause, can no longer be used.

    Its server is a standby by now (read-only), shuts down, or does not know the role any more.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        state = sqlstate(error)
        if isinstance(error, asyncpg.InternalClientError) or state == _READ_ONLY:
            return True
        if state[:2] in _OVER_CLASSES or state[:4] == _SHUTDOWN:
            return True
        error = error.__cause__ or error.__context__
    return False


def sqlstate(error: BaseException) -> str:
    """Return the SQLSTATE of an error of Postgres; empty for any other error."""
    return str(error.sqlstate or "") if isinstance(error, asyncpg.PostgresError) else ""
