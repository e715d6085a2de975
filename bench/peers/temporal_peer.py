"""Temporal as a peer: its development server on a file, and a workflow of three activities in this process.

Reads lines of JSON ({"in_flight", "seconds"}), answers with what it measured. Run by `amends_bench.peers`.
"""

import asyncio
import json
import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from uuid import uuid4

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

QUEUE = "bench"
AT_MOST = timedelta(seconds=30)


@activity.defn
async def reserve(order: str) -> str:
    """Do nothing."""
    return order


@activity.defn
async def charge(order: str) -> str:
    """Do nothing."""
    return order


@activity.defn
async def ship(order: str) -> str:
    """Do nothing."""
    return order


@workflow.defn
class PlaceOrder:
    """Three steps."""

    @workflow.run
    async def run(self, order: str) -> str:
        """One after the other."""
        for step in (reserve, charge, ship):
            await workflow.execute_activity(step, order, start_to_close_timeout=AT_MOST)
        return order


async def work(client: Client, asked: dict[str, float]) -> dict[str, float]:
    """One round."""
    times: list[float] = []
    began = time.perf_counter()
    until = began + asked["seconds"]
    prefix = uuid4().hex

    async def worker(number: int) -> None:
        count = 0
        while (now := time.perf_counter()) < until:
            count += 1
            order = f"{prefix}-{number}-{count}"
            await client.execute_workflow(PlaceOrder.run, order, id=order, task_queue=QUEUE)
            times.append(time.perf_counter() - now)

    await asyncio.gather(*(worker(number) for number in range(int(asked["in_flight"]))))
    took = time.perf_counter() - began
    times.sort()
    p50, p99 = times[len(times) // 2], times[len(times) * 99 // 100]
    return {"done": len(times), "seconds": took, "rate": len(times) / took, "p50": p50, "p99": p99, "failed": 0}


async def main() -> None:
    """Answer lines until the input ends."""
    server = which("temporal", path=str(Path(sys.executable).parent))
    loop = asyncio.get_running_loop()
    with TemporaryDirectory() as folder:
        async with (
            await WorkflowEnvironment.start_local(
                dev_server_existing_path=server,
                dev_server_database_filename=str(Path(folder, "temporal.db")),
                dev_server_log_level="error",
            ) as environment,
            Worker(
                environment.client,
                task_queue=QUEUE,
                workflows=[PlaceOrder],
                activities=[reserve, charge, ship],
                workflow_runner=UnsandboxedWorkflowRunner(),
                max_concurrent_workflow_tasks=100,
                max_concurrent_activities=100,
            ),
        ):
            while line := await loop.run_in_executor(None, sys.stdin.readline):
                print(json.dumps(await work(environment.client, json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
    os._exit(0)
