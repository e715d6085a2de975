-- One row a run: who owns it, when it is due, and what people see in a list. Everything that happened is in `journal`.
--
-- `id` is a version 7 UUID on database time: it orders runs by their start, and the journal is partitioned by it.
-- `owner` is a process with a lease; a run without one is either due (`due_at`) or waits for a person or has ended.
-- The three partial indexes are disjoint and hold only runs that have not ended, so they stay small for ever.
CREATE TABLE run (
    id                uuid PRIMARY KEY,
    owner             uuid,
    fence             bigint NOT NULL,
    due_at            timestamptz,
    started_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at          timestamptz,
    stalled_since     timestamptz,
    next_attempt_at   timestamptz,
    state             smallint NOT NULL,
    rules             smallint NOT NULL,
    skipped_by_person integer NOT NULL DEFAULT 0,
    digest            bytea NOT NULL,
    payload           bytea NOT NULL,
    namespace         text NOT NULL,
    saga              text NOT NULL,
    idempotency_key   text NOT NULL,
    traceparent       text NOT NULL DEFAULT '',
    step              text NOT NULL DEFAULT '',
    reason            text NOT NULL DEFAULT '',
    message           text NOT NULL DEFAULT ''
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE UNIQUE INDEX run_key ON run (namespace, idempotency_key);
CREATE INDEX run_owned ON run (owner) WHERE owner IS NOT NULL;
CREATE INDEX run_due ON run (due_at) WHERE owner IS NULL AND due_at IS NOT NULL;
CREATE INDEX run_parked ON run (id) WHERE state = 3;
CREATE INDEX run_stalled ON run (id) WHERE stalled_since IS NOT NULL;

COMMENT ON COLUMN run.state IS '1 running, 2 compensating, 3 parked, 4 completed, 5 compensated (amends.saga.v1.RunState)';
COMMENT ON COLUMN run.fence IS 'grows by one with every owner; whoever writes under an older one is refused';
COMMENT ON COLUMN run.rules IS 'version of the journal''s rules; an owner that does not know it leaves the run alone';
COMMENT ON COLUMN run.payload IS 'sha256 of saga and input: the same key with another payload is refused';

-- The lowest run id that a moment can have.
CREATE FUNCTION run_id_floor(moment timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
$$ SELECT (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid $$;

-- What happened, for ever in this order. Rows are only ever added; partitions of a day go when all its runs have ended.
CREATE TABLE journal (
    run_id uuid NOT NULL,
    seq    bigint NOT NULL,
    fence  bigint NOT NULL,
    record bytea NOT NULL,
    PRIMARY KEY (run_id, seq)
) PARTITION BY RANGE (run_id);

-- Makes the partitions from yesterday to `ahead` days from today (UTC); safe to call from several replicas at once.
CREATE FUNCTION make_journal_partitions(ahead integer) RETURNS integer LANGUAGE plpgsql AS
$$
DECLARE
    day  date;
    made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('amends.journal.partitions'));
    FOR day IN SELECT generate_series(0, ahead + 1) - 1 + (clock_timestamp() AT TIME ZONE 'UTC')::date LOOP
        IF to_regclass(format('journal_%s', to_char(day, 'YYYYMMDD'))) IS NULL THEN
            EXECUTE format(
                'CREATE TABLE %I PARTITION OF journal FOR VALUES FROM (%L) TO (%L)',
                format('journal_%s', to_char(day, 'YYYYMMDD')),
                run_id_floor(day::timestamp AT TIME ZONE 'UTC'), run_id_floor((day + 1)::timestamp AT TIME ZONE 'UTC')
            );
            made := made + 1;
        END IF;
    END LOOP;
    RETURN made;
END
$$;

-- One row for each orchestrator process. A run belongs to a process as long as its lease stands; only this
-- database's clock decides that.
CREATE TABLE process (
    id         uuid PRIMARY KEY,
    name       text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- What people ask of a run that another process may own. The owner answers in the same row.
CREATE TABLE run_request (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id     uuid NOT NULL,
    kind       text NOT NULL,
    actor      text NOT NULL,
    reason     text NOT NULL,
    asked_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    accepted   boolean,
    answer     text NOT NULL DEFAULT ''
);

CREATE INDEX run_request_open ON run_request (run_id) WHERE accepted IS NULL;
