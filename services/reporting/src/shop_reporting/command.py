"""`python -m shop_reporting rebuild`: builds a projection anew beside the one that serves, and lets it take its place.

It is configured as the service is. Killed and called again it goes on where it was.
"""

import argparse
import sys
from collections.abc import Sequence

import uvloop
from amends_chassis import logs
from amends_chassis.errors import Unavailable
from amends_chassis.service import Runtime
from amends_chassis.settings import LogLevel
from prometheus_client import CollectorRegistry

from shop_reporting import parts
from shop_reporting.progress import ProgressBar
from shop_reporting.settings import Settings

BUSY, UNAVAILABLE = 75, 69
"""Exit codes of sysexits.h: somebody else builds, try again later; a service does not export."""


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments say and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m shop_reporting", description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    rebuild = commands.add_parser("rebuild", help="build a projection anew, beside the one that serves")
    rebuild.add_argument(
        "--export",
        action="store_true",
        help="begin with what the services export, even if the logs still have every event",
    )
    asked = parser.parse_args(arguments)
    settings = Settings()
    logs.configure(settings.name, LogLevel.WARNING, settings.log_format)
    return uvloop.run(_rebuild(settings, asked.export))


async def _rebuild(settings: Settings, export: bool) -> int:
    gaps = 0

    def count(new: int) -> None:
        nonlocal gaps
        gaps += new

    runtime, bar = Runtime(settings, CollectorRegistry()), ProgressBar(sys.stderr)
    try:
        await runtime.database.connect()
        version = await parts.rebuild(settings, runtime, count).run(bar, export=export)
    except Unavailable as error:
        bar.end()
        sys.stderr.write(f"{error}\nWhat was done is kept: call it again when that service is there.\n")
        return UNAVAILABLE
    finally:
        await runtime.stop()
    bar.end()
    if version is None:
        sys.stderr.write("another process builds a projection\n")
        return BUSY
    sys.stdout.write(f"projection {version} serves" + (f"; {gaps} gaps are being closed\n" if gaps else "\n"))
    return 0
