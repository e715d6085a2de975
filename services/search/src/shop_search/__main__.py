"""Starts the search service, `python -m shop_search`, or does one of its commands: `... rebuild`."""

import sys
from functools import partial

from amends_chassis.projections import command
from amends_chassis.service import MIGRATE, run

from shop_search import parts
from shop_search.assemble import assemble
from shop_search.settings import Settings

if __name__ == "__main__":
    settings = Settings()
    if sys.argv[1:] not in ([], [MIGRATE]):
        sys.exit(command.main(sys.argv[1:], "shop_search", lambda: settings, partial(parts.rebuild, settings)))
    run(settings, partial(assemble, settings))
