-- What telling an article again takes: when its text, and its price, were changed last. Of what happened before, nobody knows.
ALTER TABLE article
    ADD COLUMN text_at timestamptz NOT NULL DEFAULT 'epoch',
    ADD COLUMN priced_at timestamptz NOT NULL DEFAULT 'epoch';
ALTER TABLE article ALTER COLUMN text_at SET DEFAULT clock_timestamp();
