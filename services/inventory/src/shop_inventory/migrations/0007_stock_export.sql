-- What telling the stock of an article again takes: when it was changed last. Of what happened before, nobody knows.
ALTER TABLE stock ADD COLUMN changed_at timestamptz NOT NULL DEFAULT 'epoch';
