"""The orchestrator's own metrics in one place, so that dashboards and documentation use the same list.

Labels have few values: namespaces, sagas, services and methods come from resources that an administrator applied. Run
ids, keys and messages are never labels. The chassis has the metrics of the gRPC server.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

RUNS_STARTED = Counter("amends_runs_started", "Runs started here", ["namespace", "saga"])
RUNS_ENDED = Counter("amends_runs_ended", "Runs ended or parked here, by state", ["namespace", "saga", "state"])
RUNS_HOT = Gauge("amends_runs_hot", "Runs in this process's memory")
RUNS_HOT_BYTES = Gauge("amends_runs_hot_bytes", "Bytes of the journals of the runs in this process's memory")
RUNS_CLAIMED = Counter("amends_runs_claimed", "Runs claimed by this process")
RUNS_LOST = Counter("amends_runs_lost", "Runs dropped because another owner took them")
RUNS_WAITING = Gauge("amends_runs_waiting", "Runs in the database, by condition", ["condition"])

JOURNAL_BATCH = Histogram(
    "amends_journal_batch_rows", "Rows of one statement of the writer", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
)
JOURNAL_SECONDS = Histogram(
    "amends_journal_commit_seconds",
    "Time until a statement of the writer was committed",
    buckets=(0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 5),
)
JOURNAL_REFUSED = Counter("amends_journal_refused", "Runs whose rows the journal refused, by reason", ["reason"])

CALLS = Counter("amends_calls", "Attempts of calls to participants, by status", ["service", "method", "code"])
CALL_SECONDS = Histogram(
    "amends_call_seconds",
    "Time of one attempt",
    ["service", "method"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
CALLS_IN_FLIGHT = Gauge("amends_calls_in_flight", "Calls under way", ["service"])
RETRIES = Counter("amends_retries", "Attempts that were not the first", ["service", "method"])
NOT_ADMITTED = Counter("amends_calls_not_admitted", "Calls held back, by what", ["service", "by"])
WEBHOOK_ATTEMPTS = Counter("amends_webhook_attempts", "Attempts to deliver an event, by result", ["webhook", "result"])
WEBHOOK_SECONDS = Histogram(
    "amends_webhook_seconds",
    "Time of one attempt to deliver an event",
    ["webhook"],
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
WEBHOOK_WAITING = Gauge("amends_webhook_waiting", "Events that are not delivered, by state", ["webhook", "state"])
WEBHOOK_OLDEST = Gauge("amends_webhook_oldest_seconds", "Since when the oldest of them waits", ["webhook", "state"])
BREAKER_OPEN = Gauge("amends_breaker_open", "1 while the circuit breaker is open, 0.5 half-open", ["service"])
