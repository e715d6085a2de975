"""What an error of Postgres means: that it is away, that another transaction was first, or that the session is over."""

import asyncpg
import pytest
from amends_barrier.postgres import conflict, database_away, session_over


def an_error(sqlstate: str) -> asyncpg.PostgresError:
    error = asyncpg.PostgresError(sqlstate)
    error.sqlstate = sqlstate
    return error


@pytest.mark.parametrize(
    ("error", "is_away", "is_conflict", "is_over"),
    [
        (an_error("25006"), True, False, True),  # read-only: a standby by now
        (an_error("28P01"), True, False, True),  # the password is another one by now
        (an_error("28000"), True, False, True),
        (an_error("08006"), True, False, True),
        (an_error("57P01"), True, False, True),  # shut down by an administrator
        (an_error("57P02"), True, False, True),
        (an_error("57P03"), True, False, True),
        (an_error("57014"), True, False, False),  # a statement took too long
        (an_error("53300"), True, False, False),  # too many connections
        (an_error("40001"), False, True, False),
        (an_error("40P01"), False, True, False),
        (an_error("55P03"), False, True, False),  # a lock was not to be had
        (an_error("23505"), False, False, False),
        (asyncpg.InternalClientError("cannot switch to state 15"), True, False, True),
        (asyncpg.InterfaceError("connection is closed"), True, False, False),
        (asyncpg.InterfaceError("connection has been released back to the pool"), True, False, False),
        (asyncpg.InterfaceError("the server expects 2 arguments for this query, 1 was passed"), False, False, False),
        (ValueError("no error of Postgres"), False, False, False),
    ],
    ids=str,
)
def test_an_error_means(error: BaseException, is_away: bool, is_conflict: bool, is_over: bool):
    assert (database_away(error), conflict(error), session_over(error)) == (is_away, is_conflict, is_over)


def test_a_session_is_over_when_the_cause_of_an_error_says_so():
    outer, middle = RuntimeError("outer"), RuntimeError("middle")
    outer.__cause__, middle.__context__ = middle, an_error("25006")
    assert session_over(outer)
    middle.__context__ = an_error("23505")
    middle.__context__.__context__ = outer  # a circle ends
    assert not session_over(outer)
    assert not session_over(None)
