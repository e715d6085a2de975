-- Definitions by digest: everything that a run needs of its saga, kept as long as a run is pinned to it.
CREATE TABLE definition (
    digest     bytea PRIMARY KEY,
    bundle     bytea NOT NULL,
    made_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The sagas in force: the text that a person wrote, and the digest that new runs are pinned to.
CREATE TABLE saga (
    namespace  text NOT NULL,
    name       text NOT NULL,
    digest     bytea NOT NULL REFERENCES definition,
    manifest   text NOT NULL,
    source     text NOT NULL,
    ready      boolean NOT NULL DEFAULT true,
    message    text NOT NULL DEFAULT '',
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (namespace, name)
);

-- The participants in force. `given` are descriptors that came with the resource; `descriptors` those in use.
CREATE TABLE participant (
    namespace   text NOT NULL,
    name        text NOT NULL,
    manifest    text NOT NULL,
    source      text NOT NULL,
    given       bytea,
    descriptors bytea,
    ready       boolean NOT NULL DEFAULT true,
    message     text NOT NULL DEFAULT '',
    applied_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (namespace, name)
);

CREATE TABLE retry_policy (
    namespace  text NOT NULL,
    name       text NOT NULL,
    manifest   text NOT NULL,
    source     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (namespace, name)
);

-- Grows with every change above; replicas compare it to know that they must read again.
CREATE TABLE resources_version (
    version bigint NOT NULL
);

INSERT INTO resources_version VALUES (1);
