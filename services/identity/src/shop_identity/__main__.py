"""Starts the identity service: `python -m shop_identity`."""

from functools import partial

from amends_chassis.service import run

from shop_identity.assemble import assemble
from shop_identity.settings import Settings

if __name__ == "__main__":
    run(settings := Settings(), partial(assemble, settings))
