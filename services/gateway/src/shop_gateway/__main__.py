"""Starts the gateway: `python -m shop_gateway`."""

from functools import partial

from amends_chassis.service import run

from shop_gateway.assemble import assemble
from shop_gateway.settings import Settings

if __name__ == "__main__":
    run(settings := Settings(), partial(assemble, settings))
