"""Starts the monitor: `python -m amends_monitor`."""

from functools import partial

from amends_chassis.service import run

from amends_monitor.assemble import assemble
from amends_monitor.settings import Settings

if __name__ == "__main__":
    run(settings := Settings(), partial(assemble, settings))
