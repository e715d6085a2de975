"""DBOS as a peer: a workflow of three steps in its own process, which need no call over a network.

Reads lines of JSON ({"in_flight", "seconds"}), answers with what it measured. Run by `amends_bench.peers`.
"""

import asyncio
import os

from dbos import DBOS, DBOSConfig
from orders import answer, keep_in_flight

config: DBOSConfig = {
    "name": "amends-bench-peer",
    "system_database_url": os.environ["PEER_DATABASE_URL"],
    "run_admin_server": False,
    "log_level": "ERROR",
    "sys_db_pool_size": 40,
}
DBOS(config=config)


@DBOS.step()
async def reserve(order: str) -> str:
    """Reserve nothing and return at once."""
    return order


@DBOS.step()
async def charge(order: str) -> str:
    """Charge nothing and return at once."""
    return order


@DBOS.step()
async def ship(order: str) -> str:
    """Ship nothing and return at once."""
    return order


@DBOS.workflow()
async def place_order(order: str) -> str:
    """Run the three steps of an order, one after the other."""
    await reserve(order)
    await charge(order)
    return await ship(order)


if __name__ == "__main__":
    DBOS.launch()
    asyncio.run(answer(lambda asked: keep_in_flight(place_order, asked)))
    os._exit(0)
