"""`python -m SERVICE rebuild`: builds a projection anew beside the one that serves, and lets it take its place.

It is configured as the service is. Killed and called again it goes on where it was. A service's `__main__` calls
`main` with what it builds a projection with.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import uvloop
from prometheus_client import CollectorRegistry

from amends_chassis import logs
from amends_chassis.errors import Unavailable
from amends_chassis.projections.progress import ProgressBar
from amends_chassis.projections.rebuild import Rebuild
from amends_chassis.service import Runtime
from amends_chassis.settings import LogLevel, ServiceSettings

BUSY, UNAVAILABLE = 75, 69
"""Exit codes of sysexits.h: somebody else builds, try again later; a service does not export."""

MakeRebuild = Callable[[Runtime], Rebuild[Any]]
"""Returns what builds the service's projection, in a process."""


def main(
    arguments: Sequence[str],
    program: str,
    settings: Callable[[], ServiceSettings],
    make: MakeRebuild,
    remark: Callable[[], str] = str,
) -> int:
    """Do what the arguments say and return the exit code. `remark` is put behind what is said at the end."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description="Does one thing of the service and ends.")
    commands = parser.add_subparsers(dest="command", required=True)
    asked_rebuild = commands.add_parser("rebuild", help="build a projection anew, beside the one that serves")
    asked_rebuild.add_argument(
        "--export",
        action="store_true",
        help="begin with what the services export, even if the logs still have every event",
    )
    asked = parser.parse_args(arguments)
    configured = settings()
    logs.configure(configured.name, LogLevel.WARNING, configured.log_format)
    return uvloop.run(rebuild(configured, make, export=asked.export, remark=remark))


async def rebuild(
    settings: ServiceSettings, make: MakeRebuild, *, export: bool, remark: Callable[[], str] = str
) -> int:
    """Build a projection, show how far it is on stderr, and return the exit code."""
    runtime, bar = Runtime(settings, CollectorRegistry()), ProgressBar(sys.stderr)
    try:
        await runtime.database.connect()
        version = await make(runtime).run(bar, export=export)
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
    sys.stdout.write(f"projection {version} serves{remark()}\n")
    return 0
