-- What the methods of a participant are, as JSON; NULL when a release before this one has written the row. Lists of
-- participants read this and not the descriptors, which may be megabytes.
ALTER TABLE participant ADD COLUMN methods text;

-- Through which Participant the sagas of a namespace reach a service, from the first saga on that calls it. `named_by`
-- is the saga that names the Participant, '' when it was the only one.
CREATE TABLE route (
    namespace   text NOT NULL,
    service     text NOT NULL,
    participant text NOT NULL,
    named_by    text NOT NULL DEFAULT '',
    pinned_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (namespace, service)
);
