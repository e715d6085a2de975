"""A service that calls and is called can start child processes: gRPC does nothing in them before they are programs."""

import os
import subprocess
import sys

STARTS = 100
"""One start in about twenty-five fails where gRPC's own handlers of a fork run."""
BUSY = f"""
import asyncio
import uvloop
import amends_chassis
import grpc

async def main():
    server = grpc.aio.server()
    target = f"127.0.0.1:{{server.add_insecure_port('127.0.0.1:0')}}"
    await server.start()

    async def call():
        async with grpc.aio.insecure_channel(target) as channel:
            while True:
                try:
                    await channel.unary_unary("/a.B/C")(b"")
                except grpc.aio.AioRpcError:
                    pass

    calls = [asyncio.create_task(call()) for _ in range(3)]
    codes = []
    for _ in range({STARTS}):
        child = await asyncio.create_subprocess_exec("/bin/true")
        codes.append(await child.wait())
    print(sum(code != 0 for code in codes), len(codes))
    for task in calls:
        task.cancel()
    await asyncio.wait(calls)
    await server.stop(None)

uvloop.run(main())
"""


def test_no_child_of_a_busy_service_dies_before_it_is_a_program() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    done = subprocess.run([sys.executable, "-c", BUSY], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["0", str(STARTS)], done
