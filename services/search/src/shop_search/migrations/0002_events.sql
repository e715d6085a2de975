-- What consumers know of the log: amends_events.INBOX as of this migration.
CREATE TABLE IF NOT EXISTS inbox (
    consumer text COLLATE "C" NOT NULL,
    event_id uuid NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, event_id)
);
CREATE INDEX IF NOT EXISTS inbox_at ON inbox USING brin (at);

-- The place of a consumer in a partition, its lease and its fence in one row.
CREATE TABLE IF NOT EXISTS inbox_position (
    consumer text COLLATE "C" NOT NULL,
    topic text COLLATE "C" NOT NULL,
    partition smallint NOT NULL,
    position bigint NOT NULL DEFAULT 0,
    event_id uuid,
    event_at timestamptz,
    owner text,
    fence bigint NOT NULL DEFAULT 0,
    lease_until timestamptz,
    PRIMARY KEY (consumer, topic, partition)
) WITH (fillfactor = 50);

-- The processes among which the partitions of a consumer are shared out.
CREATE TABLE IF NOT EXISTS inbox_member (
    consumer text COLLATE "C" NOT NULL,
    owner text NOT NULL,
    lease_until timestamptz NOT NULL,
    PRIMARY KEY (consumer, owner)
);

-- Events that could not be handled, and those of the same key behind them. Open until they are released.
CREATE TABLE IF NOT EXISTS inbox_parked (
    consumer text COLLATE "C" NOT NULL,
    topic text COLLATE "C" NOT NULL,
    partition smallint NOT NULL,
    position bigint NOT NULL,
    event_id uuid,
    key text COLLATE "C" NOT NULL,
    type text NOT NULL,
    attributes jsonb NOT NULL,
    payload bytea NOT NULL,
    reason text NOT NULL CHECK (reason IN ('failed', 'undecodable', 'after')),
    detail text NOT NULL,
    attempts integer NOT NULL,
    parked_at timestamptz NOT NULL DEFAULT now(),
    decision text CHECK (decision IN ('retry', 'skip')),
    decided_by text,
    decided_because text,
    decided_at timestamptz,
    released_at timestamptz,
    PRIMARY KEY (consumer, topic, partition, position),
    CHECK ((decision IS NULL) = (decided_by IS NULL) AND (decision IS NULL) = (decided_because IS NULL))
);
CREATE INDEX IF NOT EXISTS inbox_parked_open ON inbox_parked (consumer, topic, partition, position)
    WHERE released_at IS NULL;

-- What people have decided about events: amends_events.DECISIONS as of this migration.
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
