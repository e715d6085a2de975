-- The choreographies that are watched.
CREATE TABLE choreography (
    choreography_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    digest text NOT NULL,
    manifest text NOT NULL,
    -- A google.protobuf.FileDescriptorSet with the contracts of its events.
    descriptors bytea NOT NULL,
    -- Grows whenever other events are to be read than before: they are read anew then, by a consumer of another name.
    reading integer NOT NULL DEFAULT 1,
    applied_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (namespace, name)
);

-- The events of flows, each once.
CREATE TABLE flow_event (
    choreography_id bigint NOT NULL REFERENCES choreography ON DELETE CASCADE,
    key text COLLATE "C" NOT NULL,
    event_id uuid NOT NULL,
    type text COLLATE "C" NOT NULL,
    source text NOT NULL,
    occurred_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now(),
    -- False for an event that begins a flow that the choreography's condition leaves out.
    wanted boolean NOT NULL,
    PRIMARY KEY (choreography_id, key, event_id)
);

-- Flows that have to be judged, because an event came or the choreography changed. Empty when all is well.
CREATE TABLE flow_changed (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    choreography_id bigint NOT NULL,
    key text COLLATE "C" NOT NULL
);

-- Where each flow stands. Whether it is late is a matter of the clock: it is when `due_at` has passed.
CREATE TABLE flow (
    choreography_id bigint NOT NULL REFERENCES choreography ON DELETE CASCADE,
    key text COLLATE "C" NOT NULL,
    -- 1 running, 3 ended well, 4 ended undone, 5 contradictory, as FlowState; 0 left out by the condition.
    state smallint NOT NULL,
    began_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    -- When the first missing event is due; only of running flows.
    due_at timestamptz,
    PRIMARY KEY (choreography_id, key),
    CHECK ((state = 1) OR due_at IS NULL)
);
CREATE INDEX flow_by_key ON flow (key);
CREATE INDEX flow_by_due ON flow (due_at, choreography_id, key) WHERE due_at IS NOT NULL;
CREATE INDEX flow_by_age ON flow (began_at DESC, choreography_id, key) WHERE state <> 0;
CREATE INDEX flow_by_state ON flow (choreography_id, state);
CREATE INDEX flow_by_last ON flow (last_at) WHERE state IN (0, 3, 4);
