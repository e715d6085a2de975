-- What telling a reservation again takes: when each of its versions came to be.
ALTER TABLE reservation ADD COLUMN told_at timestamptz[];
-- Reservations from before there were versions.
UPDATE reservation SET version = 2 WHERE state <> 'held' AND version = 1;
-- Of what happened before, no better moment is known.
UPDATE reservation SET told_at = array_fill(created_at, ARRAY[version::integer]);
ALTER TABLE reservation
    ALTER COLUMN told_at SET DEFAULT ARRAY[clock_timestamp()],
    ALTER COLUMN told_at SET NOT NULL,
    ADD CONSTRAINT each_version_has_its_moment CHECK (cardinality(told_at) = version);

-- What was refused to choreographed orders, which has no other row.
CREATE TABLE refusal (
    order_id text PRIMARY KEY,
    reason text NOT NULL,
    message text NOT NULL,
    refused_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
