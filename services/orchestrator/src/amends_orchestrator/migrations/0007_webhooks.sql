-- What each webhook is sent: a row for each event that its destination wants, in the order of the event's key.
--
-- An event is due until it is delivered or left out, or parked when it was tried too often; then those of its key wait
-- behind it. `attempts` grows with each attempt and tells attempts apart: who was slow writes nothing over who was later.
-- `failures` counts the attempts since the last decision. What has ended stays for a while, so that it can be replayed.
CREATE TABLE webhook_delivery (
    seq             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    webhook         text COLLATE "C" NOT NULL,
    event_id        uuid NOT NULL,
    key             text COLLATE "C" NOT NULL,
    version         bigint NOT NULL,
    type            text COLLATE "C" NOT NULL,
    dataschema      text NOT NULL,
    headers         jsonb NOT NULL DEFAULT '{}',
    payload         bytea NOT NULL,
    occurred_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    state           text NOT NULL DEFAULT 'due' CHECK (state IN ('due', 'parked', 'delivered', 'skipped')),
    attempts        integer NOT NULL DEFAULT 0,
    failures        integer NOT NULL DEFAULT 0,
    due_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    leased_until    timestamptz,
    detail          text NOT NULL DEFAULT '',
    parked_at       timestamptz,
    ended_at        timestamptz,
    decision        text CHECK (decision IN ('retry', 'skip')),
    decided_by      text,
    decided_because text,
    decided_at      timestamptz,
    CHECK ((decision IS NULL) = (decided_by IS NULL) AND (decision IS NULL) = (decided_because IS NULL))
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);

CREATE INDEX webhook_delivery_due ON webhook_delivery (webhook, due_at) WHERE state = 'due';
CREATE INDEX webhook_delivery_open ON webhook_delivery (webhook, key, seq) WHERE state IN ('due', 'parked');
CREATE INDEX webhook_delivery_parked ON webhook_delivery (webhook, seq) WHERE state = 'parked';
CREATE INDEX webhook_delivery_event ON webhook_delivery (event_id);
CREATE INDEX webhook_delivery_ended ON webhook_delivery (ended_at) WHERE ended_at IS NOT NULL;
