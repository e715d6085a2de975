"""DBOS as a peer: a workflow of three steps in its own process, which need no call over a network.

Reads lines of JSON ({"in_flight", "seconds"}), answers with what it measured. Run by `amends_bench.peers`.
"""

import asyncio
import json
import os
import sys
import time

from dbos import DBOS, DBOSConfig

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
    """Do nothing."""
    return order


@DBOS.step()
async def charge(order: str) -> str:
    """Do nothing."""
    return order


@DBOS.step()
async def ship(order: str) -> str:
    """Do nothing."""
    return order


@DBOS.workflow()
async def place_order(order: str) -> str:
    """Three steps."""
    await reserve(order)
    await charge(order)
    return await ship(order)


async def work(asked: dict[str, float]) -> dict[str, float]:
    """One round."""
    times: list[float] = []
    began = time.perf_counter()
    until = began + asked["seconds"]

    async def worker(number: int) -> None:
        count = 0
        while (now := time.perf_counter()) < until:
            count += 1
            await place_order(f"order-{number}-{count}")
            times.append(time.perf_counter() - now)

    await asyncio.gather(*(worker(number) for number in range(int(asked["in_flight"]))))
    took = time.perf_counter() - began
    times.sort()
    p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    return {"done": len(times), "seconds": took, "rate": len(times) / took, "p50": p50, "p99": p99, "failed": 0}


async def main() -> None:
    """Answer lines until the input ends."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await work(json.loads(line))), flush=True)


if __name__ == "__main__":
    DBOS.launch()
    asyncio.run(main())
    os._exit(0)
