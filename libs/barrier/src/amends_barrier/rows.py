"""The table and every statement on it.

A row is void (no digest, no response) or done (both). A digest without a response is seen only by the transaction
that is still to store it. Wherever there is a row of a compensation there is one of its action.

The hot path makes no round trips of its own: the barrier's INSERT travels with BEGIN and its UPDATE with COMMIT, as
scripts of the simple protocol. Such scripts take no parameters: what goes into them is checked (keys, see
protocol.KEY_FORM) or written in hexadecimal. Each connection prepares the statements once, which halves what the server
spends on them.
"""

# ruff: noqa: S608

from amends_barrier.protocol import Operation

SCHEMA = """\
CREATE TABLE IF NOT EXISTS barrier (
    idempotency_key text COLLATE "C" NOT NULL,
    operation text COLLATE "C" NOT NULL,
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

# An action's row stands for its key: the call that locks it removes all rows of the key, when all of them are old.
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


class Scripts:
    """The scripts, for sessions that have prepared their statements.

    `token` makes the statements' names those of one barrier: several may share a pool.
    """

    def __init__(self, token: str) -> None:
        self._insert = f"amends_insert_{token}"
        self._undo = f"amends_undo_{token}"
        self._store = f"amends_store_{token}"
        self.prepare = (
            f"PREPARE {self._insert} (text, text, bytea) AS"
            " INSERT INTO barrier (idempotency_key, operation, request_digest) VALUES ($1, $2, $3)"
            " ON CONFLICT DO NOTHING",
            f"PREPARE {self._undo} (text, bytea) AS"
            " INSERT INTO barrier (idempotency_key, operation, request_digest)"
            " SELECT $1, 'compensation', $2 FROM barrier"
            " WHERE idempotency_key = $1 AND operation = 'action' AND request_digest IS NOT NULL"
            " ON CONFLICT DO NOTHING",
            f"PREPARE {self._store} (text, text, bytea) AS"
            " UPDATE barrier SET response = $3 WHERE idempotency_key = $1 AND operation = $2",
        )
        """What a session needs before any of the scripts."""

    def begin_action(self, key: str, digest: bytes) -> str:
        """Open a transaction and take the action's row. `INSERT 0 1`: it is ours; `INSERT 0 0`: it exists."""
        return f"BEGIN; EXECUTE {self._insert} ('{key}', 'action', '\\x{digest.hex()}')"

    def begin_compensation(self, key: str, digest: bytes) -> str:
        """Open a transaction, fence the action, and take the compensation's row if the action ran.

        `INSERT 0 1`: it ran and this is the first compensation; `INSERT 0 0`: anything else. The second statement has
        a snapshot of its own, so it sees an action that the first one waited for.
        """
        return (
            f"BEGIN; EXECUTE {self._insert} ('{key}', 'action', NULL);"
            f" EXECUTE {self._undo} ('{key}', '\\x{digest.hex()}')"
        )

    def finish(self, key: str, operation: Operation, response: bytes) -> str:
        """Store the response and commit."""
        return f"EXECUTE {self._store} ('{key}', '{operation}', '\\x{response.hex()}'); COMMIT"

    def void(self, key: str, operation: Operation) -> str:
        """Record an operation as void, in a transaction of its own. `INSERT 0 1`: it never ran and never will.

        Voiding a compensation fences its action too, as the compensation itself would have: an action that arrives
        after somebody decided about its compensation must not run.
        """
        fence = f"EXECUTE {self._insert} ('{key}', 'action', NULL)"
        if operation is Operation.ACTION:
            return fence
        return f"{fence}; EXECUTE {self._insert} ('{key}', 'compensation', NULL)"


NULL_COMPENSATION = """
INSERT INTO barrier (idempotency_key, operation, request_digest, response)
VALUES ($1, 'compensation', $2, '') ON CONFLICT DO NOTHING
"""

# Steps that events ask for have no request to be bound to and no response to be stored: both are empty.
TAKE_ACTION = """
INSERT INTO barrier (idempotency_key, operation, request_digest, response)
VALUES ($1, 'action', '', '') ON CONFLICT DO NOTHING RETURNING true
"""
FENCE = """
INSERT INTO barrier (idempotency_key, operation) VALUES ($1, 'action') ON CONFLICT DO NOTHING
"""
# The row is written in either case, and tells whether the action ran.
TAKE_COMPENSATION = """
WITH ran AS (
    SELECT request_digest IS NOT NULL AS ran FROM barrier WHERE idempotency_key = $1 AND operation = 'action'
), taken AS (
    INSERT INTO barrier (idempotency_key, operation, request_digest, response)
    VALUES ($1, 'compensation', '', '') ON CONFLICT DO NOTHING RETURNING true
)
SELECT ran AND EXISTS (SELECT FROM taken) FROM ran
"""
