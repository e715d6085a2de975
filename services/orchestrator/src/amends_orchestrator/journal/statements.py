"""The SQL of the writer: one statement a batch, made of the parts that the batch needs.

The statement locks the rows of the runs it writes for, in the order of their ids, and compares fences on what it
locked. A takeover therefore either waits for it or makes it see the new fence; without the lock a row could be
committed after the new owner has read the journal. NO KEY UPDATE is taken rather than SHARE, which would do,
because some of the rows are updated too, and a lock that is never raised cannot deadlock.

`(x IN (SELECT ...)) IS TRUE` keeps the planner from a nested loop over both lists: it guesses ten rows for an array of
any length. `connect` forces generic plans, because planning takes longer than running.
"""

from __future__ import annotations

_OWNED = """
owned AS MATERIALIZED (
    SELECT run.id FROM run JOIN unnest({0}::uuid[], {1}::bigint[]) AS held (id, fence)
        ON run.id = held.id AND run.fence = held.fence
    ORDER BY run.id FOR NO KEY UPDATE OF run
)"""

_STARTED = """
started AS (
    INSERT INTO run (id, namespace, saga, idempotency_key, payload, digest, rules, owner, due_at, traceparent,
                     fence, state)
    SELECT id, namespace, saga, idempotency_key, payload, digest, rules, owner,
           CASE WHEN owner IS NULL THEN clock_timestamp() END, traceparent, 1, 1
    FROM unnest({0}::uuid[], {1}::text[], {2}::text[], {3}::text[], {4}::bytea[], {5}::bytea[], {6}::smallint[],
                {7}::uuid[], {8}::text[])
        AS new (id, namespace, saga, idempotency_key, payload, digest, rules, owner, traceparent)
    ORDER BY namespace, idempotency_key
    ON CONFLICT (namespace, idempotency_key) DO NOTHING
    RETURNING id
), first AS (
    INSERT INTO journal (run_id, seq, fence, record)
    SELECT id, 1, 1, record FROM unnest({0}::uuid[], {9}::bytea[]) AS new (id, record)
    WHERE (id IN (SELECT id FROM started)) IS TRUE
)"""

_CHANGED = """
changed AS (
    UPDATE run SET
        state = new.state, owner = CASE WHEN new.release THEN NULL ELSE run.owner END,
        due_at = clock_timestamp() + new.due, ended_at = CASE WHEN new.state >= 4 THEN clock_timestamp() END,
        step = new.step, reason = new.reason, message = new.message, skipped_by_person = new.skipped,
        stalled_since = clock_timestamp() - new.stalled, next_attempt_at = clock_timestamp() + new.next_attempt
    FROM unnest({0}::uuid[], {1}::smallint[], {2}::boolean[], {3}::interval[], {4}::text[], {5}::text[],
                {6}::text[], {7}::integer[], {8}::interval[], {9}::interval[])
        AS new (id, state, release, due, step, reason, message, skipped, stalled, next_attempt)
    WHERE run.id = new.id AND (new.id IN (SELECT id FROM owned)) IS TRUE
)"""

_APPENDED = """
appended AS (
    INSERT INTO journal (run_id, seq, fence, record)
    SELECT run_id, seq, fence, record
    FROM unnest({0}::uuid[], {1}::bigint[], {2}::bigint[], {3}::bytea[]) AS new (run_id, seq, fence, record)
    WHERE (run_id IN (SELECT id FROM owned)) IS TRUE
)"""

_LOST = "SELECT id FROM unnest({0}::uuid[]) AS held (id) WHERE id NOT IN (SELECT id FROM owned)"
_KNOWN = "SELECT id FROM unnest({0}::uuid[]) AS asked (id) WHERE id NOT IN (SELECT id FROM started)"

# How many parameters each part takes; the writer gives them in this order.
OWNED_PARAMETERS, STARTED_PARAMETERS, CHANGED_PARAMETERS, APPENDED_PARAMETERS = 2, 10, 10, 4


def batch_statement(*, starts: bool, rows: bool, changes: bool) -> str:
    """The statement of a batch. It returns the ids that were refused: fenced runs, and starts whose key exists."""
    parts: list[str] = []
    answers: list[str] = []
    used = 0

    def take(template: str, count: int) -> str:
        nonlocal used
        names = [f"${used + n + 1}" for n in range(count)]
        used += count
        return template.format(*names)

    if rows:
        answers.append(_LOST.format(f"${used + 1}"))
        parts.append(take(_OWNED, OWNED_PARAMETERS))
        parts.append(take(_APPENDED, APPENDED_PARAMETERS))
    if changes:
        parts.append(take(_CHANGED, CHANGED_PARAMETERS))
    if starts:
        answers.append(_KNOWN.format(f"${used + 1}"))
        parts.append(take(_STARTED, STARTED_PARAMETERS))
    return "WITH " + ", ".join(parts) + "\n" + "\nUNION ALL ".join(answers)


# Which rows of a batch are in the journal already, and under which fence.
PRESENT = """
SELECT journal.run_id, journal.seq, journal.fence, journal.record
FROM journal JOIN unnest($1::uuid[], $2::bigint[]) AS asked (run_id, seq)
    ON journal.run_id = asked.run_id AND journal.seq = asked.seq
"""

# Who holds the keys of starts that were refused.
HOLDERS = """
SELECT run.id, run.namespace, run.idempotency_key, run.payload
FROM run JOIN unnest($1::text[], $2::text[]) AS asked (namespace, key)
    ON run.namespace = asked.namespace AND run.idempotency_key = asked.key
"""
