"""Serves a Postgres with one database until Ctrl-C: `python -m amends_embedded FOLDER [DATABASE]`.

For people whose service needs a database while they try something. The data stays in the folder.
"""

import argparse
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
    """Serve, and return the exit code: 1 when Postgres does not start. Exits with 2 for a wrong command line."""
    parser = argparse.ArgumentParser("python -m amends_embedded", description="Serve a Postgres until Ctrl-C.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the data stays")
    parser.add_argument("database", nargs="?", default="service", metavar="DATABASE", help="the name of its database")
    given = parser.parse_args()
    try:
        asyncio.run(_serve(given.folder, given.database))
    except (PostgresAlreadyRunningError, PostgresError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0
