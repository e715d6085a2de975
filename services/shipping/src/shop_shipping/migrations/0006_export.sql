-- What telling a parcel again takes: when each of its versions came to be.
ALTER TABLE shipment ADD COLUMN told_at timestamptz[];
-- Of what happened before, no better moment is known.
UPDATE shipment SET told_at = array_fill(booked_at, ARRAY[version::integer]);
ALTER TABLE shipment
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
