"""Serves a Postgres with one database until Ctrl-C: `python -m amends_embedded FOLDER [DATABASE]`.

For people whose service needs a database while they try something. The data stays in the folder.
"""

import asyncio
import signal
import sys
from pathlib import Path

from amends_embedded.postgres import Postgres, PostgresAlreadyRunningError, PostgresError


async def _serve(folder: Path, database: str) -> None:
    stop = asyncio.Event()
    for order in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(order, stop.set)
    async with await Postgres.start(folder) as server:
        url = await server.create(database, database)
        (folder / f"{database}.url").write_text(url + "\n")  # of one line
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        await stop.wait()


def main() -> int:
    """Serve, and return the exit code: 2 for a wrong command line, 1 when Postgres does not start."""
    if not 2 <= len(sys.argv) <= 3:
        sys.stderr.write("usage: python -m amends_embedded FOLDER [DATABASE]\n")
        return 2
    try:
        asyncio.run(_serve(Path(sys.argv[1]), (*sys.argv[2:], "service")[0]))
    except (PostgresAlreadyRunningError, PostgresError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0
