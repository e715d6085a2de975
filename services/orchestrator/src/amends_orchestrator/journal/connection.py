"""Opens the journal's connections, beside the pool, with the settings that the writer's statements rely on.

Called by the composition root for the writer, the leases, the claims and the listener.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg

Connect = Callable[[], Awaitable["asyncpg.Connection[Any]"]]

OPENING = timedelta(seconds=5)

# The statements are planned once, for arrays of any length, and not compiled, which would take longer than running
# them. They must find rows by key even if they were planned while the tables were empty.
SETTINGS = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "jit": "off",
    "idle_in_transaction_session_timeout": "10s",
    "synchronous_commit": "on",
}


def connector(
    url: str | Callable[[], str], name: str, *, statement_timeout: timedelta = timedelta(seconds=10)
) -> Connect:
    """Return a function that opens a connection called `name`; a statement that takes longer counts as lost.

    If `url` is a function, it is called for each connection, because passwords change while processes run. The server's
    own limit is a little longer than ours, so that it ends the statement of a lost connection by itself.
    """
    server = {
        **SETTINGS,
        "application_name": f"amends {name}",
        "statement_timeout": str(int(statement_timeout.total_seconds() * 1500)),
    }

    async def connect() -> asyncpg.Connection[Any]:
        return await asyncpg.connect(
            url if isinstance(url, str) else url(),
            timeout=OPENING.total_seconds(),
            command_timeout=statement_timeout.total_seconds(),
            server_settings=server,
        )

    return connect
