-- The spine: what happened, who has to hear of it, how far each device was read, who is who.

CREATE TABLE events (
    sequence     INTEGER PRIMARY KEY AUTOINCREMENT,  -- the gateway's own order; without gaps, never used twice
    id           TEXT NOT NULL UNIQUE,
    type         TEXT NOT NULL,
    occurred_at  TEXT NOT NULL,                      -- UTC, ISO 8601, as the device's clock and zone say
    recorded_at  TEXT NOT NULL,                      -- UTC, ISO 8601, this gateway's clock
    device       TEXT NOT NULL,                      -- the configured name
    subject      TEXT,
    data         TEXT NOT NULL                       -- JSON object
) STRICT;
CREATE INDEX events_device ON events (device, sequence);
CREATE INDEX events_subject ON events (subject, sequence) WHERE subject IS NOT NULL;

-- Digests of ids whose events are gone, so that a terminal's old log, read again, stays old.
CREATE TABLE pruned_ids (
    digest  BLOB PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TABLE sinks (
    name          TEXT PRIMARY KEY,
    mandatory     INTEGER NOT NULL,
    start         INTEGER NOT NULL,                  -- events after this sequence are owed to this sink
    delivered     INTEGER NOT NULL DEFAULT 0,
    discarded     INTEGER NOT NULL DEFAULT 0,        -- dropped by a person, or pruned before an optional sink took them
    registered_at TEXT NOT NULL,
    revoked_at    TEXT
) STRICT;

-- Which sequences a sink needs no more, as ranges: a backlog and live events drain side by side.
CREATE TABLE settled (
    sink   TEXT NOT NULL REFERENCES sinks (name) ON DELETE CASCADE,
    first  INTEGER NOT NULL,
    last   INTEGER NOT NULL CHECK (last >= first),
    PRIMARY KEY (sink, first)
) STRICT, WITHOUT ROWID;

CREATE TABLE quarantine (
    sink      TEXT NOT NULL REFERENCES sinks (name) ON DELETE CASCADE,
    sequence  INTEGER NOT NULL REFERENCES events (sequence),
    reason    TEXT NOT NULL,
    reply     TEXT NOT NULL,                         -- upstream's own words, shortened
    at        TEXT NOT NULL,
    released  INTEGER NOT NULL DEFAULT 0,            -- 1: a person wants it sent again
    PRIMARY KEY (sink, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE cursors (
    device      TEXT PRIMARY KEY,
    serial      TEXT NOT NULL,
    position    BLOB NOT NULL,                       -- opaque to everyone but the driver
    updated_at  TEXT NOT NULL
) STRICT;

CREATE TABLE people (
    subject      TEXT PRIMARY KEY,
    name         TEXT NOT NULL,
    department   TEXT NOT NULL DEFAULT '',
    valid_from   TEXT,
    valid_until  TEXT,
    created_at   TEXT NOT NULL,
    updated_at   TEXT NOT NULL
) STRICT;

CREATE TABLE device_users (
    device   TEXT NOT NULL,                          -- '' means every device that has no entry of its own
    user_id  TEXT NOT NULL,
    subject  TEXT NOT NULL REFERENCES people (subject) ON DELETE CASCADE,
    PRIMARY KEY (device, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX device_users_subject ON device_users (subject);

CREATE TABLE cards (
    digest    BLOB PRIMARY KEY,                      -- HMAC of the number; the number itself is not kept
    subject   TEXT NOT NULL REFERENCES people (subject) ON DELETE CASCADE,
    hint      TEXT NOT NULL,                         -- last digits, for people to tell cards apart
    added_at  TEXT NOT NULL
) STRICT;
CREATE INDEX cards_subject ON cards (subject);

CREATE TABLE pins (
    subject  TEXT PRIMARY KEY REFERENCES people (subject) ON DELETE CASCADE,
    hash     TEXT NOT NULL,                          -- Argon2id
    set_at   TEXT NOT NULL
) STRICT;
