CREATE TABLE article (
    sku text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    description text NOT NULL,
    category text COLLATE "C" NOT NULL,
    currency text,
    minor bigint CHECK (minor > 0),
    withdrawn boolean NOT NULL DEFAULT false,
    version bigint NOT NULL DEFAULT 1,
    CHECK ((currency IS NULL) = (minor IS NULL))
);
CREATE INDEX article_by_name ON article (name, sku) WHERE NOT withdrawn;
CREATE INDEX article_of_category ON article (category, name, sku) WHERE NOT withdrawn;

CREATE TABLE price (
    sku text COLLATE "C" NOT NULL REFERENCES article,
    version bigint NOT NULL,
    currency text NOT NULL,
    minor bigint NOT NULL CHECK (minor > 0),
    since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sku, version)
);
