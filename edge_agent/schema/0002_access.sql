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
