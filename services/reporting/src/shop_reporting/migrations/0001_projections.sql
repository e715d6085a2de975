-- A projection is everything that reporting has made of the events, in a schema of its own: r1, r2 and so on. One serves,
-- the next is built beside it and takes its place; the views of this schema show the one that serves.
CREATE TABLE projection (
    version integer PRIMARY KEY,
    -- What its tables look like: the number of make_projection's last change.
    layout integer NOT NULL,
    state text NOT NULL DEFAULT 'building' CHECK (state IN ('building', 'serving', 'retired')),
    -- Whether it was begun with what the services export, because their logs have forgotten; null until that is known.
    from_export boolean,
    created_at timestamptz NOT NULL DEFAULT now(),
    switched_at timestamptz,
    retired_at timestamptz
);
CREATE UNIQUE INDEX projection_serves ON projection ((true)) WHERE state = 'serving';

-- How far a projection has read what a service exports.
CREATE TABLE projection_export (
    version integer NOT NULL REFERENCES projection ON DELETE CASCADE,
    source text NOT NULL,
    page_token text NOT NULL,
    events bigint NOT NULL,
    done boolean NOT NULL,
    PRIMARY KEY (version, source)
);

-- Makes the schema of a projection. The role that serves owns nothing, so it calls what the owner has written here.
CREATE FUNCTION make_projection(of_version integer, of_layout integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    name text := format('r%s', of_version);
BEGIN
    INSERT INTO projection (version, layout) VALUES (of_version, of_layout);
    EXECUTE format('CREATE SCHEMA %I', name);
    PERFORM set_config('search_path', name || ', pg_temp', true);
    -- Where one order stands, in all services. Every column is told by one event, which happens to an order once.
    CREATE TABLE order_fact (
        order_id text COLLATE "C" PRIMARY KEY,
        shard smallint NOT NULL,
        -- Bits: which kinds of facts it has, and had before its last change.
        marks integer NOT NULL,
        marks_before integer NOT NULL DEFAULT 0,
        -- Bits: which versions of each service's row it has seen.
        orders_seen bigint NOT NULL,
        inventory_seen bigint NOT NULL,
        payments_seen bigint NOT NULL,
        shipping_seen bigint NOT NULL,
        -- Since when something is to come; null when nothing is, and while the order itself was not told of.
        open_since timestamptz,
        placed_at timestamptz,
        fulfilment text,
        currency text,
        total_minor bigint,
        confirmed_at timestamptz,
        rejected_at timestamptz,
        code text,
        reason text,
        order_refunded_at timestamptz,
        dispatched_at timestamptz,
        reserved_at timestamptz,
        short_at timestamptz,
        released_at timestamptz,
        taken_at timestamptz,
        taken_currency text,
        taken_minor bigint,
        payment_failed_at timestamptz,
        payment_refunded_at timestamptz,
        refunded_currency text,
        refunded_minor bigint,
        booked_at timestamptz,
        parcel_refused_at timestamptz,
        cancelled_at timestamptz,
        handed_over_at timestamptz
    ) WITH (fillfactor = 70);
    CREATE INDEX order_open ON order_fact (open_since, order_id) WHERE open_since IS NOT NULL;
    -- Sums are kept in shards, a partition's each, so that those who read different partitions do not wait for each other.
    CREATE TABLE sales_sum (
        day date NOT NULL,
        currency text NOT NULL,
        shard smallint NOT NULL,
        placed bigint NOT NULL,
        placed_minor bigint NOT NULL,
        taken bigint NOT NULL,
        taken_minor bigint NOT NULL,
        refunded bigint NOT NULL,
        refunded_minor bigint NOT NULL,
        PRIMARY KEY (day, currency, shard)
    ) WITH (fillfactor = 50);
    CREATE TABLE funnel_sum (
        day date NOT NULL,
        fulfilment text NOT NULL,
        shard smallint NOT NULL,
        placed bigint NOT NULL,
        reserved bigint NOT NULL,
        taken bigint NOT NULL,
        booked bigint NOT NULL,
        confirmed bigint NOT NULL,
        rejected bigint NOT NULL,
        order_refunded bigint NOT NULL,
        dispatched bigint NOT NULL,
        PRIMARY KEY (day, fulfilment, shard)
    ) WITH (fillfactor = 50);
    CREATE TABLE undone_sum (
        day date NOT NULL,
        code text NOT NULL,
        shard smallint NOT NULL,
        orders bigint NOT NULL,
        reserved bigint NOT NULL,
        released bigint NOT NULL,
        taken bigint NOT NULL,
        payment_refunded bigint NOT NULL,
        booked bigint NOT NULL,
        cancelled bigint NOT NULL,
        PRIMARY KEY (day, code, shard)
    ) WITH (fillfactor = 50);
    -- Orders of which a version of a service's row was jumped over, until its export has told it.
    CREATE TABLE version_gap (
        order_id text COLLATE "C" NOT NULL,
        source text NOT NULL,
        seen_at timestamptz NOT NULL DEFAULT now(),
        tried_at timestamptz,
        PRIMARY KEY (order_id, source)
    );
    CREATE VIEW order_process AS
        SELECT order_id, open_since, placed_at, fulfilment, currency, total_minor, confirmed_at, rejected_at, code, reason,
            order_refunded_at, dispatched_at, reserved_at, short_at, released_at, taken_at, taken_currency, taken_minor,
            payment_failed_at, payment_refunded_at, refunded_currency, refunded_minor, booked_at, parcel_refused_at,
            cancelled_at, handed_over_at, orders_seen, inventory_seen, payments_seen, shipping_seen
        FROM order_fact;
    CREATE VIEW sales AS
        SELECT day, currency, sum(placed)::bigint AS placed, sum(placed_minor)::bigint AS placed_minor,
            sum(taken)::bigint AS taken, sum(taken_minor)::bigint AS taken_minor, sum(refunded)::bigint AS refunded,
            sum(refunded_minor)::bigint AS refunded_minor
        FROM sales_sum GROUP BY day, currency;
    CREATE VIEW funnel AS
        SELECT day, fulfilment, sum(placed)::bigint AS placed, sum(reserved)::bigint AS reserved,
            sum(taken)::bigint AS taken, sum(booked)::bigint AS booked, sum(confirmed)::bigint AS confirmed,
            sum(rejected)::bigint AS rejected, sum(order_refunded)::bigint AS order_refunded,
            sum(dispatched)::bigint AS dispatched
        FROM funnel_sum GROUP BY day, fulfilment;
    CREATE VIEW undone AS
        SELECT day, code, sum(orders)::bigint AS orders, sum(reserved)::bigint AS reserved,
            sum(released)::bigint AS released, sum(taken)::bigint AS taken,
            sum(payment_refunded)::bigint AS payment_refunded, sum(booked)::bigint AS booked,
            sum(cancelled)::bigint AS cancelled
        FROM undone_sum GROUP BY day, code;
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', name, session_user);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %I TO %I', name, session_user);
END $$;

-- Lets the views show a projection, and retires the one that served: all of it or nothing. It does not wait long for
-- readers, because others would wait behind it.
CREATE FUNCTION switch_projection(to_version integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
    shown text;
BEGIN
    UPDATE projection SET state = 'retired', retired_at = now() WHERE state = 'serving' AND version <> to_version;
    UPDATE projection SET state = 'serving', switched_at = now(), retired_at = NULL WHERE version = to_version;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no projection %', to_version;
    END IF;
    FOREACH shown IN ARRAY ARRAY['order_process', 'sales', 'funnel', 'undone'] LOOP
        EXECUTE format('DROP VIEW IF EXISTS %I', shown);
        EXECUTE format('CREATE VIEW %I AS SELECT * FROM %I.%I', shown, format('r%s', to_version), shown);
        EXECUTE format('GRANT SELECT ON %I TO %I', shown, session_user);
    END LOOP;
END $$;

-- Drops a projection that does not serve, with all that its consumer knows of the log.
CREATE FUNCTION drop_projection(of_version integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    DELETE FROM projection WHERE version = of_version AND state <> 'serving';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'projection % serves, or is not there', of_version;
    END IF;
    EXECUTE format('DROP SCHEMA %I CASCADE', format('r%s', of_version));
    DELETE FROM inbox WHERE consumer = format('reporting@%s', of_version);
    DELETE FROM inbox_position WHERE consumer = format('reporting@%s', of_version);
    DELETE FROM inbox_member WHERE consumer = format('reporting@%s', of_version);
    DELETE FROM inbox_parked WHERE consumer = format('reporting@%s', of_version);
END $$;
