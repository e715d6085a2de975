"""Processes of the shop that die and come back."""

import sys

from amends_demo.stack import GATEWAY, READY, Stack
from amends_embedded import Child

READS = "inventory-reads"
"""A replica of inventory that only the gateway asks: when it is dead, sagas still find the other one."""


async def start(stack: Stack, name: str) -> None:
    """Start a process again where it was, or the replica for the first time."""
    if name != READS:
        await stack.start_one(name)
        return
    environment = stack.environment("inventory")
    environment["AMENDS_PORT"] = str(stack.reports.get(name, {}).get("grpc", ":0")).rpartition(":")[2]
    child = Child.start(
        name,
        [sys.executable, "-m", stack.modules["inventory"]],
        log=stack.place.logs / f"{name}.log",
        report=stack.place.reports / f"{name}.json",
        environment=environment,
    )
    stack.children.add(child)
    stack.reports[name] = await child.ready(READY)


async def read_from_the_replica(stack: Stack) -> None:
    """Let the gateway ask the replica of inventory."""
    await start(stack, READS)
    await stack.child(GATEWAY).terminate()
    del stack.reports[GATEWAY]  # nobody knows its ports yet, and somebody may have taken them
    await stack.start_one(GATEWAY, {"AMENDS_INVENTORY_TARGET": stack.address(READS)})
