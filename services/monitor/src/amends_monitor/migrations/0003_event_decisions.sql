-- For who is on call: amends_events.DECISIONS as of this migration.
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
