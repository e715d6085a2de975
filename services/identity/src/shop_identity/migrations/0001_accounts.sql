-- Who may sign in. A closed account's row is deleted.
CREATE TABLE account (
    account_id text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL DEFAULT 1,
    email_address text COLLATE "C" NOT NULL UNIQUE,
    password_hash text NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT now()
);

-- A session goes on with its newest refresh token, of which only the hash is here.
CREATE TABLE session (
    session_id uuid PRIMARY KEY,
    account_id text COLLATE "C" NOT NULL REFERENCES account ON DELETE CASCADE,
    token_hash bytea NOT NULL,
    signed_in_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX session_of_account ON session (account_id, signed_in_at);
CREATE INDEX session_expired ON session (expires_at);

-- How often a password was tried. `who` is made of an e-mail address with a secret: nobody can read the address in it.
CREATE TABLE attempt (
    who bytea PRIMARY KEY,
    failures integer NOT NULL,
    last_at timestamptz NOT NULL DEFAULT now(),
    blocked_until timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX attempt_last_at ON attempt (last_at);

-- The private half is encrypted with the installation's secret.
CREATE TABLE signing_key (
    kid text COLLATE "C" PRIMARY KEY,
    public_key bytea NOT NULL,
    private_key bytea NOT NULL,
    signs_from timestamptz NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now()
);
