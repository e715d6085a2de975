"""Every benchmark by its name: what it measures, and how it is run. `make bench ARGS=--list` prints it.

The names are those of the Makefile's targets (`make bench-latency`), of the files in bench/results, and of the tables.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from rich.progress import Progress

from amends_bench.chassis import chassis_vs_grpc, tls_vs_plain_text
from amends_bench.events import events
from amends_bench.fulfilments import choreographed_vs_orchestrated
from amends_bench.gateway import gateway_vs_framework
from amends_bench.guarded import barrier_transaction
from amends_bench.journal import journal
from amends_bench.kubernetes import operator_vs_kopf
from amends_bench.pages import page_of_parts
from amends_bench.projections import projections
from amends_bench.queue import claims_vs_queue
from amends_bench.recovery import recovery
from amends_bench.sagas import latency, sagas_vs_dbos, sagas_vs_plain_calls, with_barriers
from amends_bench.searching import search_apart
from amends_bench.suite import Comparison, SuiteOptions


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark: what it measures, in a line, and how it is run."""

    measures: str
    run: Callable[[SuiteOptions, Progress], Awaitable[list[Comparison]]]


BENCHMARKS = {
    "sagas-vs-dbos": Benchmark("Sagas against DBOS", sagas_vs_dbos),
    "sagas-vs-plain-calls": Benchmark("Sagas against the same calls without durability", sagas_vs_plain_calls),
    "with-barriers": Benchmark("The same with the barrier in the participants of both", with_barriers),
    "latency": Benchmark("How long one saga takes, against the same calls", latency),
    "journal": Benchmark("Durable transitions of the journal", journal),
    "chassis-vs-grpc": Benchmark("Calls through the chassis, against bare grpc.aio", chassis_vs_grpc),
    "tls-vs-plain-text": Benchmark("Calls with mutual TLS and rules, against plain text", tls_vs_plain_text),
    "claims-vs-queue": Benchmark("Runs claimed and finished, against a job queue", claims_vs_queue),
    "operator-vs-kopf": Benchmark(
        "Five thousand SagaRuns through the operator, against a bare kopf handler", operator_vs_kopf
    ),
    "recovery": Benchmark("The rate after kill -9 and after a restart of Postgres", recovery),
    "barrier-transaction": Benchmark("A local transaction with the barrier and without", barrier_transaction),
    "events": Benchmark("What events cost: outbox, relay and consumer, each beside its like", events),
    "projections": Benchmark("A projection built from the log, against the same by hand", projections),
    "search-apart": Benchmark("Search in a process of its own, against search in the catalogue", search_apart),
    "choreographed-vs-orchestrated": Benchmark(
        "An order by events, against the same order by its saga", choreographed_vs_orchestrated
    ),
    "gateway-vs-framework": Benchmark(
        "An article through the gateway, against the bare framework", gateway_vs_framework
    ),
    "page-of-parts": Benchmark("A page of the shop with four parts, against its slowest part", page_of_parts),
}
GROWTH = "growth"
GROWTH_MEASURES = 'Cost as work grows; the largest history needs 42 GB of disk (ARGS="--finished 0,1000000": less)'
QUICK = (
    "sagas-vs-plain-calls",
    "journal",
    "chassis-vs-grpc",
    "claims-vs-queue",
    "barrier-transaction",
    "events",
    "gateway-vs-framework",
)
"""Without latency: how long one saga takes on a busy machine says how busy it is."""
