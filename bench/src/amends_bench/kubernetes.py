"""Five thousand SagaRuns from their creation to their end, against a kopf handler that writes one status patch.

All are there before the process is started that handles them, so that its rate is its own. An object has ended when the
API server says so to a watch of those that have; what was written is counted in the API server's audit log. Memory is
the most that the process ever had. `whole` has the real orchestrator and its services behind the operator, on the same
two cores as the API server; otherwise a stand-in has completed every run at once.
"""

import asyncio
import json
import ssl
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
from amends_embedded import Child
from amends_operator.kube.objects import API_VERSION, GROUP, VERSION
from amends_testkit.kubernetes import HOW_TO_GET, Kubernetes, assets
from rich.progress import Progress

from amends_bench import world
from amends_bench.peers import BENCH, PeersMissingError
from amends_bench.suite import Comparison, SuiteOptions
from amends_bench.verify import WrongTotalsError, audit

MANY, FEW = 5_000, 500
ROUNDS = 3
AT_ONCE = 32
PATIENCE = timedelta(minutes=5)
PATH = f"/apis/{GROUP}/{VERSION}/namespaces/{world.NAMESPACE}/sagaruns"
METADATA = {"Accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}
INPUT = {
    "customerId": "ada",
    "lines": [{"sku": "tea-assam", "quantity": 2}, {"sku": "mug-blue", "quantity": 1}],
    "total": {"currency": "EUR", "minor": 4200},
    "cardToken": "tok_visa",
    "address": {
        "recipient": "Ada Lovelace",
        "street": "Rosenweg 3",
        "city": "Berlin",
        "postalCode": "10115",
        "country": "DE",
    },
}


@dataclass(slots=True)
class BenchCluster:
    """An API server with our kinds, and a session of an administrator."""

    server: Kubernetes
    session: aiohttp.ClientSession
    folder: Path
    serial: int = 0
    ended: set[str] = field(default_factory=set)

    async def create(self, objects: int) -> None:
        """Create SagaRuns, some of them at once."""
        self.serial += 1
        numbers = iter(range(objects))

        async def some() -> None:
            for number in numbers:
                name = f"run-{self.serial}-{number}"
                body = {
                    "apiVersion": API_VERSION,
                    "kind": "SagaRun",
                    "metadata": {"name": name},
                    "spec": {"saga": "place-order", "input": {"orderId": name, **INPUT}},
                }
                async with self.session.post(self.server.url + PATH, json=body) as answer:
                    answer.raise_for_status()

        await asyncio.gather(*(some() for _ in range(AT_ONCE)))

    async def clear(self) -> None:
        """Delete all SagaRuns of this side."""
        async with self.session.delete(self.server.url + PATH, timeout=aiohttp.ClientTimeout(total=120)) as answer:
            answer.raise_for_status()

    async def until_ended(self, objects: int) -> None:
        """Wait until so many SagaRuns have ended."""
        self.ended.clear()
        query = "?watch=true&fieldSelector=status.phase%3DCompleted"
        while len(self.ended) < objects:
            async with self.session.get(self.server.url + PATH + query, headers=METADATA) as answer:
                async for line in answer.content:
                    event = json.loads(line)
                    if event.get("type") not in ("ADDED", "MODIFIED"):
                        break
                    self.ended.add(event["object"]["metadata"]["name"])
                    if len(self.ended) == objects:
                        return
            await asyncio.sleep(0.1)  # not ready to be watched yet

    def written(self, since: int) -> Counter[str]:
        """Count the writes to each SagaRun since a place in the audit log; its creation is not counted."""
        counts: Counter[str] = Counter()
        with self.server.audit_log.open() as log:
            log.seek(since)
            for line in log:
                entry = json.loads(line)
                what = entry.get("objectRef", {})
                if what.get("resource") == "sagaruns" and entry["verb"] in ("update", "patch", "delete"):
                    counts[what["name"]] += 1
        return counts

    def processor_seconds(self, *children: Child) -> float:
        """Return the processor time, in seconds, of the API server, its database and these children."""
        return world.used(child.pid for child in (*self.server.children.running.values(), *children))


@asynccontextmanager
async def cluster() -> AsyncIterator[BenchCluster]:
    """Yield a cluster of its own, gone afterwards. Raises PeersMissingError where there are no programs for it."""
    programs = assets()
    if programs is None:
        raise PeersMissingError(HOW_TO_GET)
    with TemporaryDirectory(prefix="amends-bench-") as scratch:
        folder = Path(scratch)
        async with await Kubernetes.start(folder / "kubernetes", programs, audited=True) as server:
            await server.define(BENCH.parent / "charts" / "amends-crds" / "templates")
            await server.kubectl("create", "namespace", world.NAMESPACE)
            tls = ssl.create_default_context(cafile=server.authority)
            async with aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=tls),
                headers={"Authorization": f"Bearer {server.tokens['admin']}"},
                timeout=aiohttp.ClientTimeout(total=None),
            ) as session:
                yield BenchCluster(server, session, folder)


async def one_round(
    where: BenchCluster, module: str, objects: int, told: Mapping[str, str], behind: tuple[Child, ...] = ()
) -> dict[str, Any]:
    """Let one process handle new objects; return what that took. `behind` are the processes that it calls."""
    await where.create(objects)
    since = where.server.audit_log.stat().st_size
    environment = {
        "KUBECONFIG": str(where.server.kubeconfig(namespace=world.NAMESPACE)),
        "AMENDS_NAMESPACES": world.NAMESPACE,
        **told,
    }
    watching = asyncio.create_task(where.until_ended(objects))
    worked, began = where.processor_seconds(*behind), time.perf_counter()
    child = Child.start(
        module, [sys.executable, "-m", module], log=where.folder / f"{module}.log", environment=environment
    )
    try:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            await watching
        took = time.perf_counter() - began
        worked = where.processor_seconds(child, *behind) - worked
        memory = _most_memory(child.pid)
    finally:
        watching.cancel()
        await child.terminate()
    writes = where.written(since)
    await where.clear()
    if len(writes) != objects:
        raise WrongTotalsError(f"{objects} objects have ended, {len(writes)} were written\n{child.tail()}")
    return {
        "objects": objects,
        "seconds": took,
        "rate": objects / took,
        "per_processor": objects / worked,
        "memory": memory,
        "writes": max(writes.values()),
        "writes_of_all": sum(writes.values()),
    }


def _most_memory(pid: int) -> float:
    """Return the greatest resident set of a process so far, in megabytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no memory")


async def operator_vs_kopf(options: SuiteOptions, progress: Progress) -> list[Comparison]:
    """Compare the operator with the bare handler, on one API server, in rounds that alternate."""
    objects, rounds = (FEW, 2) if options.quick else (MANY, ROUNDS)
    found = _comparisons(objects)
    async with cluster() as where, _stand_in(where) as stand_in:
        report = await stand_in.ready()

        async def subject() -> dict[str, Any]:
            told = {"AMENDS_ORCHESTRATOR_TARGET": str(report["grpc"])}
            return await one_round(where, "amends_operator", objects, told, (stand_in,))

        async def peer() -> dict[str, Any]:
            return await one_round(where, "amends_bench.bare_handler", objects, {})

        sides: list[tuple[list[dict[str, Any]], Any]] = [
            (found[0].peer_rounds, peer),
            (found[0].subject_rounds, subject),
        ]
        bar = progress.add_task(f"operator-vs-kopf: {objects} SagaRuns", total=rounds * len(sides))
        for number in range(rounds):
            for kept, side in sides if number % 2 == 0 else reversed(sides):
                kept.append(await side())
                progress.update(bar, advance=1)
        for one in found[1:]:
            one.subject_rounds, one.peer_rounds = found[0].subject_rounds, found[0].peer_rounds
        if not options.quick:
            found.append(await _whole(where, objects, peer, progress))
    return found


def _comparisons(objects: int) -> list[Comparison]:
    what = (f"the operator, {objects:,} SagaRuns", "a bare kopf handler, one status patch")
    return [
        Comparison("operator-vs-kopf rate", *what, "per second", 0.6),
        Comparison("operator-vs-kopf processor", *what, "per processor second", None, key="per_processor"),
        Comparison("operator-vs-kopf writes", *what, "writes", 2.0, at_most=True, key="writes"),
        Comparison("operator-vs-kopf memory", *what, "megabytes", 1.3, at_most=True, key="memory"),
    ]


@asynccontextmanager
async def _stand_in(where: BenchCluster) -> AsyncIterator[Child]:
    module = "amends_bench.stand_in"
    child = Child.start(
        module,
        [sys.executable, "-m", module],
        log=where.folder / "stand-in.log",
        report=where.folder / "stand-in.json",
    )
    try:
        yield child
    finally:
        await child.terminate()


async def _whole(where: BenchCluster, objects: int, peer: Any, progress: Progress) -> Comparison:
    """One pair of rounds with everything behind the operator; the audit must find every run completed once."""
    one = Comparison(
        "operator-vs-kopf whole",
        f"the operator, two orchestrators, three services, Postgres, {objects:,} SagaRuns",
        "a bare kopf handler, one status patch",
        "per second",
        None,
    )
    async with world.running() as shop:
        behind = tuple(shop.children.running.values())
        told = {"AMENDS_ORCHESTRATOR_TARGET": "ipv4:" + ",".join(shop.orchestrators)}
        bar = progress.add_task(one.name, total=2)
        ours = await one_round(where, "amends_operator", objects, told, behind)
        progress.update(bar, advance=1)
        runs = await audit(shop)
        if runs != objects:
            raise WrongTotalsError(f"{objects} SagaRuns have ended, there are {runs} runs")
        one.subject_rounds.append(ours | {"runs_audited": runs})
        one.peer_rounds.append(await peer())
        progress.update(bar, advance=1)
    return one
