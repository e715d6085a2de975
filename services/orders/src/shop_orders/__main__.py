"""Starts the orders service: `python -m shop_orders`."""

from functools import partial

from amends_chassis.service import run

from shop_orders.assemble import assemble
from shop_orders.settings import Settings

if __name__ == "__main__":
    run(settings := Settings(), partial(assemble, settings))
