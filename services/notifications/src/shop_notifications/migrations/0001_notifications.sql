-- Where customers are written to: a copy of what the customers service tells, by the customer's version. The row of an
-- erased customer stays without anything about them, so that nothing late brings an address back.
CREATE TABLE contact (
    customer_id text PRIMARY KEY,
    version bigint NOT NULL,
    email text NOT NULL,
    locale text NOT NULL,
    erased boolean NOT NULL DEFAULT false,
    CHECK (NOT erased OR (email = '' AND locale = ''))
);

-- Whose an order is: not every event about an order says so.
CREATE TABLE customer_of_order (
    order_id text PRIMARY KEY,
    customer_id text NOT NULL,
    known_since timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX customer_of_order_customer ON customer_of_order (customer_id);
CREATE INDEX customer_of_order_since ON customer_of_order USING brin (known_since);

CREATE TABLE notification (
    notification_id uuid PRIMARY KEY,  -- uuid5(event_id, template and channel)
    event_id uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    template text NOT NULL,
    parameters jsonb NOT NULL,         -- goes when the customer is erased
    order_id text NOT NULL,
    customer_id text NOT NULL,         -- empty until it is known
    state text NOT NULL CHECK (state IN ('due', 'sending', 'sent', 'refused', 'unknown', 'suppressed')),
    message_id text NOT NULL UNIQUE,   -- the header; the same at each attempt
    attempts integer NOT NULL DEFAULT 0,
    due_at timestamptz,                -- when to look at it next; of one that is being sent: when it counts as given up
    began_at timestamptz,              -- the last attempt
    answer text NOT NULL DEFAULT '',
    sent_at timestamptz,
    CHECK (state NOT IN ('due', 'sending') OR due_at IS NOT NULL),
    CHECK (state NOT IN ('sent', 'refused', 'suppressed') OR due_at IS NULL),
    CHECK ((state = 'sent') = (sent_at IS NOT NULL))
);
CREATE INDEX notification_due ON notification (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX notification_newest ON notification (occurred_at DESC, notification_id DESC);
CREATE INDEX notification_of_customer ON notification (customer_id, occurred_at DESC, notification_id DESC);
CREATE INDEX notification_of_order ON notification (order_id) WHERE order_id <> '';
CREATE INDEX notification_begun ON notification (customer_id, began_at DESC) WHERE began_at IS NOT NULL;
