"""The frame of the benchmarks' server processes: listen, report the address, end on a signal.

Used by `participant`, `front` and the servers of chassis-vs-grpc.
"""

import asyncio
import gc
import json
import os
import signal
from pathlib import Path

import grpc.aio


async def serve_until_told(name: str, server: grpc.aio.Server) -> None:
    """Start the server on a free port of this machine, report it as `amends_embedded.Child` wants it, and wait."""
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    gc.collect()
    gc.freeze()  # as the chassis does: both sides of a comparison are run in the same way
    report = Path(os.environ["AMENDS_REPORT_FILE"])
    draft = report.with_suffix(".draft")
    draft.write_text(json.dumps({"service": name, "pid": os.getpid(), "grpc": f"127.0.0.1:{port}"}))
    draft.replace(report)
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    await told.wait()
    await server.stop(1)
