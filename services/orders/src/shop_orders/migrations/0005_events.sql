-- The version of an order, which its events carry.
ALTER TABLE orders ADD COLUMN version bigint NOT NULL DEFAULT 1;

-- Events on their way to the broker: amends_events.OUTBOX as of this migration.
CREATE TABLE IF NOT EXISTS outbox (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id uuid NOT NULL,
    topic text COLLATE "C" NOT NULL,
    partition smallint NOT NULL,
    key text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    type text COLLATE "C" NOT NULL,
    dataschema text NOT NULL,
    headers jsonb NOT NULL DEFAULT '{}',
    payload bytea NOT NULL,
    occurred_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX IF NOT EXISTS outbox_of_partition ON outbox (topic, partition, seq);
