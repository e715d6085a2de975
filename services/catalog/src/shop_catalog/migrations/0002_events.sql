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

-- For who is on call: amends_events.SENT and amends_events.DECISIONS as of this migration.
-- What the broker has taken, for as long as the service keeps it: for a broker that loses it.
CREATE TABLE IF NOT EXISTS outbox_sent (
    LIKE outbox,
    sent_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (seq)
);
CREATE INDEX IF NOT EXISTS outbox_sent_at ON outbox_sent USING brin (sent_at);
-- What people have decided about events: never changed, never deleted.
CREATE TABLE IF NOT EXISTS event_decision (
    decision_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    decided_at timestamptz NOT NULL DEFAULT now(),
    decision text NOT NULL CHECK (decision IN ('retry', 'skip', 'replay', 'skip-outbox', 'republish')),
    subject text NOT NULL,
    actor text NOT NULL,
    identity text NOT NULL,
    reason text NOT NULL,
    effect text NOT NULL,
    attributes jsonb,
    payload bytea
);
