CREATE TABLE slots (
    country text NOT NULL,
    carrier text NOT NULL,
    available bigint NOT NULL CHECK (available >= 0),
    booked bigint NOT NULL DEFAULT 0 CHECK (booked >= 0),
    PRIMARY KEY (country, carrier)
);

CREATE TABLE shipment (
    tracking_id text PRIMARY KEY,
    order_id text NOT NULL UNIQUE,
    carrier text NOT NULL,
    recipient text NOT NULL,
    street text NOT NULL,
    city text NOT NULL,
    postal_code text NOT NULL,
    country text NOT NULL,
    booked_at timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (country, carrier) REFERENCES slots
);

CREATE TABLE shipment_line (
    tracking_id text NOT NULL REFERENCES shipment,
    position integer NOT NULL,
    sku text NOT NULL,
    quantity integer NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (tracking_id, position)
);
