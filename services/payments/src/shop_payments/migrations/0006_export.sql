-- What telling a payment again takes: when each of its versions came to be.
ALTER TABLE payment ADD COLUMN told_at timestamptz[];
-- Payments from before there were versions.
UPDATE payment SET version = 2 WHERE state = 'refunded' AND version = 1;
UPDATE payment SET told_at = ARRAY(
    SELECT at FROM entry WHERE entry.payment_id = payment.payment_id ORDER BY kind);
ALTER TABLE payment
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
