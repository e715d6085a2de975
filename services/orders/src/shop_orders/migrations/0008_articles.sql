-- Prices belong to catalog: orders keeps copies, which its events feed. A price of before has version 0, so that
-- the first that catalog tells is later. The column is added first, and the version of the service that does not know it
-- goes on; nothing is taken away while it may run.
ALTER TABLE price ADD COLUMN version bigint NOT NULL DEFAULT 0;

CREATE TABLE article (
    sku text PRIMARY KEY,
    name text NOT NULL DEFAULT '',
    withdrawn boolean NOT NULL DEFAULT false,
    version bigint NOT NULL DEFAULT 0
);
