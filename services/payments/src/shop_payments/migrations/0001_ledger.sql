-- The chart of accounts is part of the code (domain.Account), not data.
CREATE TABLE account (
    account text PRIMARY KEY
);
INSERT INTO account VALUES ('customer-cards'), ('merchant');

CREATE TABLE payment (
    payment_id text PRIMARY KEY,
    order_id text NOT NULL UNIQUE,
    currency text NOT NULL,
    minor bigint NOT NULL CHECK (minor > 0),
    card_fingerprint text NOT NULL,
    card_last_four text NOT NULL,
    state text NOT NULL DEFAULT 'charged' CHECK (state IN ('charged', 'refunded')),
    disputed boolean NOT NULL,
    charged_at timestamptz NOT NULL DEFAULT now(),
    refund_id text UNIQUE,
    CHECK ((state = 'refunded') = (refund_id IS NOT NULL))
);

CREATE TABLE entry (
    entry_id text PRIMARY KEY,
    payment_id text NOT NULL REFERENCES payment,
    kind text NOT NULL CHECK (kind IN ('charge', 'refund')),
    currency text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    -- The database's own guard: a payment is charged once and refunded at most once.
    UNIQUE (payment_id, kind)
);

CREATE TABLE posting (
    entry_id text NOT NULL REFERENCES entry,
    account text NOT NULL REFERENCES account,
    minor bigint NOT NULL CHECK (minor <> 0),
    PRIMARY KEY (entry_id, account)
);

-- Checked at commit, when an entry has all its postings: no code path can unbalance the books.
CREATE FUNCTION entry_is_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    postings bigint;
    total numeric;
BEGIN
    SELECT count(*), coalesce(sum(minor), 0) INTO postings, total FROM posting WHERE entry_id = NEW.entry_id;
    IF postings < 2 OR total <> 0 THEN
        RAISE EXCEPTION 'entry % has % postings that sum to %', NEW.entry_id, postings, total
            USING ERRCODE = 'check_violation', CONSTRAINT = 'entry_is_balanced';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER entry_is_balanced AFTER INSERT ON entry
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION entry_is_balanced();
CREATE CONSTRAINT TRIGGER entry_is_balanced AFTER INSERT ON posting
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION entry_is_balanced();

-- A mistake is corrected by another entry.
CREATE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only' USING ERRCODE = 'check_violation', CONSTRAINT = 'ledger_is_append_only';
END $$;
CREATE TRIGGER ledger_is_append_only BEFORE UPDATE OR DELETE ON entry
    FOR EACH ROW EXECUTE FUNCTION ledger_is_append_only();
CREATE TRIGGER ledger_is_append_only BEFORE UPDATE OR DELETE ON posting
    FOR EACH ROW EXECUTE FUNCTION ledger_is_append_only();

-- How often the simulated card network was asked about an order, for the test cards that change their mind.
CREATE TABLE network_attempt (
    order_id text PRIMARY KEY,
    attempts integer NOT NULL
);
