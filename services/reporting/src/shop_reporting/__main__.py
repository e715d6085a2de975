"""Starts the reporting service, `python -m shop_reporting`, or does one of its commands: `... rebuild`."""

import sys
from functools import partial

from amends_chassis.service import MIGRATE, run

from shop_reporting import command
from shop_reporting.assemble import assemble
from shop_reporting.settings import Settings

if __name__ == "__main__":
    if sys.argv[1:] not in ([], [MIGRATE]):
        sys.exit(command.main(sys.argv[1:]))
    run(settings := Settings(), partial(assemble, settings))
