DO $$ BEGIN
    IF current_setting('server_encoding') <> 'UTF8' THEN
        RAISE EXCEPTION 'search needs a database in UTF8, not in %', current_setting('server_encoding');
    END IF;
END $$;

-- Without accents, without endings and in spite of mistakes: both extensions are trusted, so the owner of the database may
-- create them.
CREATE EXTENSION IF NOT EXISTS unaccent;
CREATE EXTENSION IF NOT EXISTS pg_trgm;

-- Words as they are, but for accents. The service cuts texts and queries into words itself.
CREATE TEXT SEARCH CONFIGURATION words (COPY = pg_catalog.simple);
ALTER TEXT SEARCH CONFIGURATION words ALTER MAPPING FOR word, numword WITH unaccent, simple;

-- An index is everything that search has made of the events, in a schema of its own: i1, i2 and so on. One serves, the
-- next is built beside it and takes its place; the views of this schema show the one that serves.
CREATE TABLE projection (
    version integer PRIMARY KEY,
    -- What its tables look like: the number of make_projection's last change.
    layout integer NOT NULL,
    state text NOT NULL DEFAULT 'building' CHECK (state IN ('building', 'serving', 'retired')),
    -- Whether it was begun with what the services export, because their logs have forgotten; null until that is known.
    from_export boolean,
    created_at timestamptz NOT NULL DEFAULT now(),
    switched_at timestamptz,
    retired_at timestamptz
);
CREATE UNIQUE INDEX projection_serves ON projection ((true)) WHERE state = 'serving';

-- How far an index has read what a service exports.
CREATE TABLE projection_export (
    version integer NOT NULL REFERENCES projection ON DELETE CASCADE,
    source text NOT NULL,
    page_token text NOT NULL,
    events bigint NOT NULL,
    done boolean NOT NULL,
    PRIMARY KEY (version, source)
);

-- Makes the schema of an index. The role that serves owns nothing, so it calls what the owner has written here.
CREATE FUNCTION make_projection(of_version integer, of_layout integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    name text := format('i%s', of_version);
BEGIN
    INSERT INTO projection (version, layout) VALUES (of_version, of_layout);
    EXECUTE format('CREATE SCHEMA %I', name);
    PERFORM set_config('search_path', name || ', public, pg_temp', true);
    -- Text and price each have the version of the event that told them; -1 before any has. An article without a name is
    -- not sold: it was withdrawn, or only its price has been told yet.
    CREATE TABLE article (
        sku text COLLATE "C" PRIMARY KEY,
        text_version bigint NOT NULL DEFAULT -1,
        name text COLLATE "C",
        category text COLLATE "C",
        document tsvector NOT NULL DEFAULT '',
        price_version bigint NOT NULL DEFAULT -1,
        currency text,
        minor bigint,
        CHECK ((name IS NULL) = (category IS NULL) AND (currency IS NULL) = (minor IS NULL))
    );
    CREATE INDEX article_document ON article USING gin (document);
    CREATE TABLE stock (
        sku text COLLATE "C" PRIMARY KEY,
        version bigint NOT NULL,
        available bigint NOT NULL
    ) WITH (fillfactor = 70);
    -- Every word that a text has had, without accents, with its stem unless it is one like "the": what a mistyped one
    -- may have been.
    CREATE TABLE word (
        word text COLLATE "C" PRIMARY KEY,
        stem text COLLATE "C"
    );
    CREATE INDEX word_stem ON word (stem);
    CREATE INDEX word_alike ON word USING gin (word gin_trgm_ops);
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', name, session_user);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %I TO %I', name, session_user);
END $$;

-- Lets the views show an index, and retires the one that served: all of it or nothing. It does not wait long for
-- readers, because others would wait behind it.
CREATE FUNCTION switch_projection(to_version integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '200ms' AS $$
DECLARE
    shown text;
BEGIN
    UPDATE projection SET state = 'retired', retired_at = now() WHERE state = 'serving' AND version <> to_version;
    UPDATE projection SET state = 'serving', switched_at = now(), retired_at = NULL WHERE version = to_version;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no projection %', to_version;
    END IF;
    FOREACH shown IN ARRAY ARRAY['article', 'stock', 'word'] LOOP
        EXECUTE format('DROP VIEW IF EXISTS %I', shown);
        EXECUTE format('CREATE VIEW %I AS SELECT * FROM %I.%I', shown, format('i%s', to_version), shown);
        EXECUTE format('GRANT SELECT ON %I TO %I', shown, session_user);
    END LOOP;
END $$;

-- Drops an index that does not serve, with all that its consumer knows of the log.
CREATE FUNCTION drop_projection(of_version integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    DELETE FROM projection WHERE version = of_version AND state <> 'serving';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'projection % serves, or is not there', of_version;
    END IF;
    EXECUTE format('DROP SCHEMA %I CASCADE', format('i%s', of_version));
    DELETE FROM inbox WHERE consumer = format('search@%s', of_version);
    DELETE FROM inbox_position WHERE consumer = format('search@%s', of_version);
    DELETE FROM inbox_member WHERE consumer = format('search@%s', of_version);
    DELETE FROM inbox_parked WHERE consumer = format('search@%s', of_version);
END $$;
