"""Temporal as a peer: its development server on a file, and a workflow of three activities in this process.

Reads lines of JSON ({"in_flight", "seconds"}), answers with what it measured. Run by `amends_bench.peers`.
"""

import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from uuid import uuid4

from orders import answer, keep_in_flight
from temporalio import activity, workflow
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

QUEUE = "bench"
AT_MOST = timedelta(seconds=30)


@activity.defn
async def reserve(order: str) -> str:
    """Reserve nothing and return at once."""
    return order


@activity.defn
async def charge(order: str) -> str:
    """Charge nothing and return at once."""
    return order


@activity.defn
async def ship(order: str) -> str:
    """Ship nothing and return at once."""
    return order


@workflow.defn
class PlaceOrder:
    """A workflow with the three steps of an order."""

    @workflow.run
    async def run(self, order: str) -> str:
        """Run the three steps, one after the other."""
        for step in (reserve, charge, ship):
            await workflow.execute_activity(step, order, start_to_close_timeout=AT_MOST)
        return order


async def main() -> None:
    """Answer lines until the input ends."""
    server = which("temporal", path=str(Path(sys.executable).parent))
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

            async def one(order: str) -> None:
                id_ = f"{order}-{uuid4().hex}"  # workflows of earlier rounds are kept
                await environment.client.execute_workflow(PlaceOrder.run, order, id=id_, task_queue=QUEUE)

            await answer(lambda asked: keep_in_flight(one, asked))


if __name__ == "__main__":
    asyncio.run(main())
    os._exit(0)
