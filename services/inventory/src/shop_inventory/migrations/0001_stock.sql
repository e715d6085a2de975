-- Articles are compared byte by byte (COLLATE "C"), so that SQL and Python agree on the order in which rows are locked.
CREATE TABLE stock (
    sku text COLLATE "C" PRIMARY KEY,
    received bigint NOT NULL DEFAULT 0,
    available bigint NOT NULL DEFAULT 0 CHECK (available >= 0),
    reserved bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),
    sold bigint NOT NULL DEFAULT 0 CHECK (sold >= 0),
    CONSTRAINT nothing_is_lost CHECK (received = available + reserved + sold)
);

CREATE TABLE reservation (
    order_id text PRIMARY KEY,
    reservation_id text NOT NULL UNIQUE,
    state text NOT NULL CHECK (state IN ('held', 'released', 'dispatched')),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE delivery (
    delivery_id text PRIMARY KEY,
    received_at timestamptz NOT NULL DEFAULT now()
);

-- Every piece that ever moved, and why. What an order holds is its `reserve` rows. The primary key is also the
-- database's own guard against moving the same pieces twice.
CREATE TABLE movement (
    reference text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('receive', 'reserve', 'release', 'dispatch')),
    sku text COLLATE "C" NOT NULL REFERENCES stock,
    quantity bigint NOT NULL CHECK (quantity > 0),
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (reference, kind, sku)
);
