"""Procrastinate as a peer: jobs that do nothing, taken from the same Postgres.

Reads lines of JSON ({"jobs", "workers"}), answers with jobs per second. Run by `amends_bench.peers`.
"""

import asyncio
import os
import time

from orders import answer
from procrastinate import App, PsycopgConnector

app = App(connector=PsycopgConnector(conninfo=os.environ["PEER_DATABASE_URL"]))


@app.task
async def nothing(number: int) -> None:
    """Complete the job without doing any work."""


async def work(asked: dict[str, int]) -> dict[str, float]:
    """Queue jobs, then measure how fast they are taken and finished."""
    await nothing.batch_defer_async(*({"number": number} for number in range(asked["jobs"])))
    began = time.perf_counter()
    await app.run_worker_async(wait=False, concurrency=asked["workers"], install_signal_handlers=False)
    took = time.perf_counter() - began
    return {"done": asked["jobs"], "seconds": took, "rate": asked["jobs"] / took}


async def main() -> None:
    """Answer lines until the input ends."""
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await answer(work)


if __name__ == "__main__":
    asyncio.run(main())
