-- The row of a customer stays after it was erased, with nothing in it but the account's id: so nothing that comes late
-- can bring it back.
CREATE TABLE customer (
    account_id text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL DEFAULT 1,
    erased boolean NOT NULL DEFAULT false,
    -- What it agrees to now; how that came about is in `consent`.
    agreed_to text[] NOT NULL DEFAULT '{}',
    frequency text NOT NULL DEFAULT 'any' CHECK (frequency IN ('any', 'weekly', 'monthly')),
    -- About what it wants campaigns; empty: about everything.
    topics text[] NOT NULL DEFAULT '{}',
    orders bigint NOT NULL DEFAULT 0,
    last_ordered_at timestamptz,
    last_sent_at timestamptz,
    CONSTRAINT nothing_is_known_of_who_was_erased CHECK (NOT erased OR
        (agreed_to = '{}' AND frequency = 'any' AND topics = '{}' AND orders = 0 AND last_ordered_at IS NULL
         AND last_sent_at IS NULL))
);

-- Who agreed to what, when, and what they were shown. Rows are added, and deleted with the customer.
CREATE TABLE consent (
    consent_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id text COLLATE "C" NOT NULL REFERENCES customer,
    purpose text NOT NULL CHECK (purpose IN ('email')),
    granted boolean NOT NULL,
    wording text NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX consent_of_customer ON consent (account_id, consent_id DESC);

CREATE TABLE campaign (
    campaign_id text COLLATE "C" PRIMARY KEY,
    topic text NOT NULL CHECK (topic IN ('offers', 'articles', 'news')),
    audience text NOT NULL CHECK (audience IN ('everybody', 'buyers', 'newcomers')),
    subject text NOT NULL,
    text text NOT NULL,
    sent bigint NOT NULL DEFAULT 0,
    -- All customers up to this account have been looked at.
    looked_at text COLLATE "C" NOT NULL DEFAULT '',
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz
);
CREATE INDEX campaign_open ON campaign (started_at) WHERE ended_at IS NULL;

CREATE TABLE sent_campaign (
    account_id text COLLATE "C" NOT NULL REFERENCES customer,
    campaign_id text COLLATE "C" NOT NULL REFERENCES campaign,
    sent_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, campaign_id)
);
