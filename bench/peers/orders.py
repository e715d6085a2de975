"""The loop that all peers share: answer each line that `amends_bench.peers` sends, and keep many orders in flight."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any


async def answer(work: Callable[[dict[str, Any]], Awaitable[dict[str, float]]]) -> None:
    """Answer each line of JSON on standard input with one of what `work` measured, until the input ends."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await work(json.loads(line))), flush=True)


async def keep_in_flight(one: Callable[[str], Awaitable[object]], asked: dict[str, float]) -> dict[str, float]:
    """One round: do `one` with the name of an order, `asked["in_flight"]` at once, for `asked["seconds"]`."""
    times: list[float] = []
    began = time.perf_counter()
    until = began + asked["seconds"]

    async def worker(number: int) -> None:
        count = 0
        while (now := time.perf_counter()) < until:
            count += 1
            await one(f"order-{number}-{count}")
            times.append(time.perf_counter() - now)

    await asyncio.gather(*(worker(number) for number in range(int(asked["in_flight"]))))
    took = time.perf_counter() - began
    times.sort()
    p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    return {"done": len(times), "seconds": took, "rate": len(times) / took, "p50": p50, "p99": p99, "failed": 0}
