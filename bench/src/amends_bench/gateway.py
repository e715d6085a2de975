"""The cost of the gateway for reading an article, against the bare framework, and what answers that are kept save.

Both sides have the same catalog behind them, which answers at once. The peer does what the gateway must do at least:
starlette and uvicorn, one call over gRPC, the answer as JSON. Called by `table`.
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from amends_embedded import Child, Children
from rich.progress import Progress

from amends_bench.suite import Comparison, Round, SuiteOptions, alternate
from amends_bench.verify import WrongTotalsError

ADDRESS = "/v1/articles/tea-assam"
CONNECTIONS = 32
NOBODY = "127.0.0.1:1"
BEHIND = ("customers", "identity", "inventory", "marketing", "notifications", "orders", "search")
TOLD = {
    **{f"AMENDS_{name.upper()}_TARGET": NOBODY for name in BEHIND},
    "AMENDS_TOKEN_ISSUER": "https://issuer.test",
    "AMENDS_TOKEN_AUDIENCE": "shop",
    "AMENDS_TOKEN_KEYS_URL": f"http://{NOBODY}/",
    "AMENDS_COOKIE_SECRET": "c" * 32,
    "AMENDS_RATE_PER_ADDRESS": "1000000",
    "AMENDS_LOG_LEVEL": "error",
}
FRESH = "cache-control: no-cache\r\n"


async def gateway_vs_framework(options: SuiteOptions, progress: Progress) -> list[Comparison]:
    """Measure reads of an article a second, and how long one takes when its answer is kept and when it is not."""
    subject = "an article through the gateway, not kept"
    against_bare = Comparison(
        "gateway-vs-framework", subject, "starlette and uvicorn with one gRPC call", "per second", 0.45
    )
    kept = Comparison(
        "gateway-vs-framework kept", subject, "the same while its answer is kept", "ms, p50", 3, key="p50"
    )
    async with _sides() as (gateway, framework):
        fast, bare = _round(gateway, FRESH, CONNECTIONS, options), _round(framework, FRESH, CONNECTIONS, options)
        await fast()
        await bare()
        await alternate(against_bare, fast, bare, options.rounds, progress)
        asked, found = _round(gateway, FRESH, 1, options), _round(gateway, "", 1, options)
        await alternate(kept, asked, found, options.rounds, progress)
    return [against_bare, kept]


@asynccontextmanager
async def _sides() -> AsyncIterator[tuple[str, str]]:
    """Run the catalog, the gateway and the framework alone; yield where the last two are."""
    with TemporaryDirectory(prefix="amends-bench-") as scratch:
        async with Children(grace=timedelta(seconds=5)) as children:
            catalog = await _start(children, "catalog", "amends_bench.articles", {}, Path(scratch))
            target = {"AMENDS_CATALOG_TARGET": catalog["grpc"]}
            gateway = await _start(children, "gateway", "shop_gateway", TOLD | target, Path(scratch))
            framework = await _start(children, "framework", "amends_bench.framework", target, Path(scratch))
            yield gateway["http"], framework["http"]


async def _start(
    children: Children, name: str, module: str, environment: Mapping[str, str], folder: Path
) -> Mapping[str, str]:
    """Start a process, and return what it reports when it is assembled."""
    child = Child.start(
        name,
        [sys.executable, "-m", module],
        log=folder / f"{name}.log",
        report=(report := folder / f"{name}.json"),
        environment=dict(environment),
    )
    children.add(child)
    told: Mapping[str, str] = await child.ready()
    while name != "catalog" and "http" not in told:  # it listens for checks of health first
        await asyncio.sleep(0.02)
        told = json.loads(report.read_text())
    return told


def _round(address: str, header: str, connections: int, options: SuiteOptions) -> Round:
    request = f"GET {ADDRESS} HTTP/1.1\r\nhost: {address}\r\n{header}\r\n".encode()
    host, _, port = address.rpartition(":")

    async def one() -> Mapping[str, Any]:
        end = time.perf_counter() + options.duration.total_seconds()
        asking = (_ask(host, int(port), request, end) for _ in range(connections))
        taken = [seconds for each in await asyncio.gather(*asking) for seconds in each]
        rate = len(taken) / options.duration.total_seconds()
        return {"rate": rate, "p50": statistics.median(taken) * 1_000, "calls": len(taken)}

    return one


async def _ask(host: str, port: int, request: bytes, end: float) -> list[float]:
    """Send a request over one connection until it is time, and return how long each answer took.

    It is as little of a client as will do, so that its share of the processor is small. Raises WrongTotalsError.
    """
    reader, writer = await asyncio.open_connection(host, port)
    taken = []
    while (began := time.perf_counter()) < end:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(length)
        if not head.startswith(b"http/1.1 200") or b'"Assam"' not in body:
            raise WrongTotalsError(f"{host}:{port} answered {head[:20]!r}")
        taken.append(time.perf_counter() - began)
    writer.close()
    return taken
