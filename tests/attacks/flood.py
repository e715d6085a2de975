"""Opens connections, and on each of them calls that never send a message: `flood.py ADDRESS CONNECTIONS CALLS`.

Holds them until it is told to end by the end of its standard input. In a process of its own, because what it costs here
would be taken for what it costs the server.
"""

import asyncio
import sys
from typing import Any

import grpc
import grpc.aio


async def flood(address: str, connections: int, calls: int) -> None:
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(connections)]
    held: list[Any] = []
    for channel in channels:
        method: Any = channel.stream_unary("/amends.saga.v1.RunService/StartRun")
        held += [method() for _ in range(calls)]
        await asyncio.sleep(0)
    sys.stdout.write("open\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    for channel in channels:
        await channel.close()


if __name__ == "__main__":
    asyncio.run(flood(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
