"""Waits until a run has ended or is parked: in memory if this process drives it, else by reading its row.

Called by StartRun, and by the methods that change a run and answer with it.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

from amends_chassis.database import Executes

from amends_orchestrator.journal.reader import read_run
from amends_orchestrator.journal.records import State
from amends_orchestrator.runner.live import LiveRun

_FIRST = 0.05
_LONGEST = 0.5


async def live_settled(run: LiveRun, within: timedelta) -> bool:
    """Return whether a run has left this process in time: it ended, was parked, or was let go (read its row)."""
    if run.gone:
        return True
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def left(_: LiveRun) -> None:
        if not done.done():
            done.set_result(None)

    run.leavers.append(left)
    try:
        async with asyncio.timeout(max(within.total_seconds(), 0.0)):
            await done
    except TimeoutError:
        return run.gone
    finally:
        run.leavers.remove(left)
    return True


async def row_settled(database: Executes, run_id: UUID, within: timedelta) -> bool:
    """Return whether a run of another process has ended or is parked, as soon as its row says so."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within.total_seconds()
    pause = _FIRST
    while True:
        row = await read_run(database, run_id)
        if row is None or row.state.ended or row.state is State.PARKED:
            return True
        left = end - loop.time()
        if left <= 0:
            return False
        await asyncio.sleep(min(pause, left))
        pause = min(pause * 1.5, _LONGEST)
