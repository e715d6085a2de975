-- What guarded methods remember: amends_barrier.Barrier.schema() as of this migration.
CREATE TABLE IF NOT EXISTS barrier (
    idempotency_key text COLLATE "C" NOT NULL,
    operation text COLLATE "C" NOT NULL,
    request_digest bytea,
    response bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (idempotency_key, operation)
) WITH (fillfactor = 70);
CREATE INDEX IF NOT EXISTS barrier_created_at ON barrier USING brin (created_at);
