-- Doors and people at them: what each person may, where they were last, what is wrong, what was asked.

CREATE TABLE access_people (
    subject               TEXT PRIMARY KEY REFERENCES people (subject) ON DELETE CASCADE,
    enabled               INTEGER NOT NULL DEFAULT 1,
    opener                INTEGER NOT NULL DEFAULT 0,
    passes_lockdown       INTEGER NOT NULL DEFAULT 0,
    anti_passback_exempt  INTEGER NOT NULL DEFAULT 0,
    duress_pin            TEXT,                      -- Argon2id
    duress_finger         INTEGER                    -- position 1..10
) STRICT;

CREATE TABLE access_members (
    subject     TEXT NOT NULL REFERENCES people (subject) ON DELETE CASCADE,
    group_name  TEXT NOT NULL,                       -- of the configuration; an unknown one gives nothing
    PRIMARY KEY (subject, group_name)
) STRICT, WITHOUT ROWID;
CREATE INDEX access_members_group ON access_members (group_name);

CREATE TABLE presence (
    subject   TEXT PRIMARY KEY REFERENCES people (subject) ON DELETE CASCADE,
    zone      TEXT,                                  -- NULL: never through a door; '' is outside
    door      TEXT NOT NULL DEFAULT '',
    since     TEXT,
    punched   TEXT,                                  -- state of the last punch at a capture point
    punch_at  TEXT
) STRICT;

CREATE TABLE door_states (
    door          TEXT PRIMARY KEY,
    ordered       TEXT,                              -- a person's order, above the schedule
    ordered_until TEXT,
    ordered_by    TEXT NOT NULL DEFAULT '',
    office_until  TEXT,
    last_opener   TEXT
) STRICT;

CREATE TABLE attempts (
    place     TEXT PRIMARY KEY,                      -- capture point and factor, or person and factor
    in_a_row  INTEGER NOT NULL,
    in_all    INTEGER NOT NULL,
    last      TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE alarms (
    id              INTEGER PRIMARY KEY,
    kind            TEXT NOT NULL,
    place           TEXT NOT NULL,                   -- door or device
    raised_at       TEXT NOT NULL,
    event           TEXT NOT NULL,                   -- id of the one event that tells of it
    silent          INTEGER NOT NULL DEFAULT 0,
    cleared_at      TEXT,
    acknowledged_at TEXT,
    acknowledged_by TEXT
) STRICT;
CREATE UNIQUE INDEX alarms_event ON alarms (event);
CREATE UNIQUE INDEX alarms_standing ON alarms (kind, place) WHERE cleared_at IS NULL;

-- Requests of the six verbs, and until when they must be answered.
CREATE TABLE rights_requests (
    id           TEXT PRIMARY KEY,
    subject      TEXT NOT NULL,
    verb         TEXT NOT NULL,
    received_at  TEXT NOT NULL,
    verified_at  TEXT,
    verified_by  TEXT,
    answered_at  TEXT,
    outcome      TEXT NOT NULL DEFAULT ''
) STRICT;

-- What was ordered to be erased: written down before it is done, finished after a crash or an unsealing.
CREATE TABLE erasure_orders (
    id          TEXT PRIMARY KEY,
    subject     TEXT NOT NULL,
    kind        TEXT NOT NULL,                       -- 'erase', 'withdraw', 'leave', 'cancel'
    modality    TEXT,                                -- NULL: all of them
    purpose     TEXT,
    reason      TEXT NOT NULL,
    actor       TEXT NOT NULL,
    ordered_at  TEXT NOT NULL,
    receipt     TEXT,                                -- id in the template store, once that part is done
    done_at     TEXT,                                -- nothing is left to do on this machine
    events_by   TEXT                                 -- leaving: when events are made anonymous at the latest
) STRICT;
CREATE INDEX erasure_orders_open ON erasure_orders (ordered_at) WHERE done_at IS NULL OR events_by IS NOT NULL;

-- People that devices still have in their own memory although they must not.
CREATE TABLE device_removals (
    device      TEXT NOT NULL,
    user_id     TEXT NOT NULL,
    erasure     TEXT NOT NULL REFERENCES erasure_orders (id) ON DELETE CASCADE,
    attempts    INTEGER NOT NULL DEFAULT 0,
    last_error  TEXT NOT NULL DEFAULT '',
    done_at     TEXT,
    PRIMARY KEY (device, user_id, erasure)
) STRICT, WITHOUT ROWID;
