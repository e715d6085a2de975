"""The table and every statement on it.

A row is void (no digest, no response) or done (both). A digest without a response is seen only by the transaction
that is still to store it. Wherever there is a row of a compensation there is one of its action.

The statements of the hot path are scripts of the simple protocol, so that the barrier's INSERT travels with BEGIN and
its UPDATE with COMMIT: a guarded transaction makes as many round trips as the same one unguarded. Scripts take no
parameters; what goes into them is checked (keys, see protocol.KEY_FORM) or written in hexadecimal.
"""

# ruff: noqa: S608

from amends_barrier.protocol import Operation

SCHEMA = """\
CREATE TABLE IF NOT EXISTS barrier (
    idempotency_key text COLLATE "C" NOT NULL,
    operation text COLLATE "C" NOT NULL CHECK (operation IN ('action', 'compensation')),
    request_digest bytea,
    response bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (idempotency_key, operation)
) WITH (fillfactor = 70);
CREATE INDEX IF NOT EXISTS barrier_created_at ON barrier USING brin (created_at);
"""

READ = """
SELECT operation, request_digest, response FROM barrier WHERE idempotency_key = $1
"""

# An action's row stands for its key: whoever locks it removes all of the key, and only when all of it is old.
EXPIRE = """
WITH old AS (
    SELECT idempotency_key FROM barrier AS a
    WHERE operation = 'action' AND created_at < now() - $1::interval
      AND NOT EXISTS (
        SELECT FROM barrier AS c
        WHERE c.idempotency_key = a.idempotency_key AND c.operation = 'compensation'
          AND c.created_at >= now() - $1::interval)
    LIMIT $2
    FOR UPDATE SKIP LOCKED
)
DELETE FROM barrier WHERE idempotency_key IN (SELECT idempotency_key FROM old)
"""


def begin_action(key: str, digest: bytes) -> str:
    """Open a transaction and take the action's row. `INSERT 0 1`: it is ours; `INSERT 0 0`: somebody was here."""
    return f"BEGIN; {_insert(key, Operation.ACTION, digest)}"


def begin_compensation(key: str, digest: bytes) -> str:
    """Open a transaction, fence the action, and take the compensation's row if the action ran.

    `INSERT 0 1`: it ran and this is the first compensation; `INSERT 0 0`: anything else. The second statement has a
    snapshot of its own, so it sees an action that the first one waited for.
    """
    return (
        f"BEGIN; {_insert(key, Operation.ACTION, None)};"
        f" INSERT INTO barrier (idempotency_key, operation, request_digest)"
        f" SELECT '{key}', 'compensation', '\\x{digest.hex()}'::bytea FROM barrier"
        f" WHERE idempotency_key = '{key}' AND operation = 'action' AND request_digest IS NOT NULL"
        f" ON CONFLICT DO NOTHING"
    )


def finish(key: str, operation: Operation, response: bytes) -> str:
    """Store the response and commit."""
    return (
        f"UPDATE barrier SET response = '\\x{response.hex()}'"
        f" WHERE idempotency_key = '{key}' AND operation = '{operation}'; COMMIT"
    )


def null_compensation(key: str, digest: bytes) -> str:
    """Record a compensation that had nothing to undo, with an empty response."""
    return (
        "INSERT INTO barrier (idempotency_key, operation, request_digest, response)"
        f" VALUES ('{key}', 'compensation', '\\x{digest.hex()}', '') ON CONFLICT DO NOTHING"
    )


def void(key: str, operation: Operation) -> str:
    """Record an operation as void, in a transaction of its own. `INSERT 0 1`: it never ran and never will.

    Voiding a compensation fences its action too, as the compensation itself would have: an action that arrives after
    somebody decided about its compensation must not run.
    """
    if operation is Operation.ACTION:
        return _insert(key, Operation.ACTION, None)
    return f"{_insert(key, Operation.ACTION, None)}; {_insert(key, Operation.COMPENSATION, None)}"


def _insert(key: str, operation: Operation, digest: bytes | None) -> str:
    value = "NULL" if digest is None else f"'\\x{digest.hex()}'"
    return (
        "INSERT INTO barrier (idempotency_key, operation, request_digest)"
        f" VALUES ('{key}', '{operation}', {value}) ON CONFLICT DO NOTHING"
    )
