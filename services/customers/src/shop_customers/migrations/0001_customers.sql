-- A customer is written down before anything is known about it, and its row stays after it was erased, with nothing in
-- it but the account's id: so nothing that comes late can bring it back.
CREATE TABLE customer (
    account_id text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL DEFAULT 1,
    erased boolean NOT NULL DEFAULT false,
    name text NOT NULL DEFAULT '',
    email_address text NOT NULL DEFAULT '',
    locale text NOT NULL DEFAULT 'en',
    CONSTRAINT nothing_is_known_of_who_was_erased CHECK (NOT erased OR (name = '' AND email_address = '' AND locale = 'en'))
);

CREATE TABLE billing_address (
    account_id text COLLATE "C" PRIMARY KEY REFERENCES customer,
    recipient text NOT NULL,
    street text NOT NULL,
    city text NOT NULL,
    postal_code text NOT NULL,
    country text NOT NULL
);

CREATE TABLE delivery_address (
    account_id text COLLATE "C" NOT NULL REFERENCES customer,
    delivery_address_id text COLLATE "C" NOT NULL,
    label text NOT NULL,
    recipient text NOT NULL,
    street text NOT NULL,
    city text NOT NULL,
    postal_code text NOT NULL,
    country text NOT NULL,
    PRIMARY KEY (account_id, delivery_address_id)
);

-- The token names a card at the payment provider.
CREATE TABLE payment_method (
    account_id text COLLATE "C" NOT NULL REFERENCES customer,
    payment_method_id text COLLATE "C" NOT NULL,
    brand text NOT NULL,
    last_four text NOT NULL,
    card_token text NOT NULL,
    PRIMARY KEY (account_id, payment_method_id)
);
