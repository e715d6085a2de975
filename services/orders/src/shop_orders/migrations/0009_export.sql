-- What telling an order again takes: when each of its versions came to be, and why it was rejected, for programs.
ALTER TABLE orders ADD COLUMN code text, ADD COLUMN told_at timestamptz[];

-- Orders from before there were versions: placed, ended, dispatched.
UPDATE orders SET version = CASE WHEN state = 'confirmed' AND follow_up_at IS NULL THEN 3 ELSE 2 END
WHERE state <> 'pending' AND version < CASE WHEN state = 'confirmed' AND follow_up_at IS NULL THEN 3 ELSE 2 END;
-- Of what happened before, no better moments are known.
UPDATE orders
SET told_at = placed_at || array_fill(coalesce(ended_at, placed_at), ARRAY[version::integer - 1]);

ALTER TABLE orders
    ALTER COLUMN told_at SET DEFAULT ARRAY[clock_timestamp()],
    ALTER COLUMN told_at SET NOT NULL,
    ADD CONSTRAINT each_version_has_its_moment CHECK (cardinality(told_at) = version);
