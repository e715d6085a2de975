"""Procrastinate as a peer: jobs that do nothing, taken from the same Postgres.

Reads lines of JSON ({"jobs", "workers"}), answers with jobs per second. Run by `amends_bench.peers`.
"""

import asyncio
import json
import os
import sys
import time

from procrastinate import App, PsycopgConnector

app = App(connector=PsycopgConnector(conninfo=os.environ["PEER_DATABASE_URL"]))


@app.task
async def nothing(number: int) -> None:
    """Do nothing."""


async def work(asked: dict[str, int]) -> dict[str, float]:
    """Queue jobs, then measure how fast they are taken and finished."""
    await nothing.batch_defer_async(*({"number": number} for number in range(asked["jobs"])))
    began = time.perf_counter()
    await app.run_worker_async(wait=False, concurrency=asked["workers"], install_signal_handlers=False)
    took = time.perf_counter() - began
    return {"done": asked["jobs"], "seconds": took, "rate": asked["jobs"] / took}


async def main() -> None:
    """Answer lines until the input ends."""
    loop = asyncio.get_running_loop()
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            print(json.dumps(await work(json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
