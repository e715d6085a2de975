-- What is made once for this installation and shared by its replicas.
--
-- `secret`: the idempotency keys that participants see are made with it, so that nobody can work them out from a run's
-- id, which callers get to see. It must stay as long as runs are open: their keys would change with it.
CREATE TABLE installation (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    secret   bytea NOT NULL,
    made_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- 244 random bits of the server's strong source.
INSERT INTO installation (secret) VALUES (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
