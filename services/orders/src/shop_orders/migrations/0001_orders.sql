CREATE TABLE price (
    sku text PRIMARY KEY,
    currency text NOT NULL,
    minor bigint NOT NULL CHECK (minor > 0)
);

CREATE TABLE orders (
    order_id text PRIMARY KEY,
    digest bytea NOT NULL,
    customer_id text NOT NULL,
    currency text NOT NULL,
    total_minor bigint NOT NULL CHECK (total_minor > 0),
    recipient text NOT NULL,
    street text NOT NULL,
    city text NOT NULL,
    postal_code text NOT NULL,
    country text NOT NULL,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'confirmed', 'rejected')),
    card_token text,
    run_id text,
    tracking_id text,
    payment_id text,
    reason text,
    placed_at timestamptz NOT NULL DEFAULT now(),
    -- When somebody has to look after this order next; null when nothing is left to do.
    follow_up_at timestamptz,
    follow_up_tries integer NOT NULL DEFAULT 0,
    CONSTRAINT token_is_erased_once_the_saga_has_it CHECK (card_token IS NULL OR (run_id IS NULL AND state = 'pending')),
    CONSTRAINT confirmed_has_papers CHECK (state <> 'confirmed' OR (tracking_id IS NOT NULL AND payment_id IS NOT NULL)),
    CONSTRAINT rejected_has_reason CHECK ((state = 'rejected') = (reason IS NOT NULL))
);
CREATE INDEX orders_newest_first ON orders (placed_at DESC, order_id DESC);
CREATE INDEX orders_of_customer ON orders (customer_id, placed_at DESC, order_id DESC);
CREATE INDEX orders_to_follow_up ON orders (follow_up_at) WHERE follow_up_at IS NOT NULL;

-- With the price of the day, which is not looked up again.
CREATE TABLE order_line (
    order_id text NOT NULL REFERENCES orders,
    sku text COLLATE "C" NOT NULL,
    quantity integer NOT NULL CHECK (quantity > 0),
    unit_minor bigint NOT NULL CHECK (unit_minor > 0),
    PRIMARY KEY (order_id, sku)
);
