-- Who may do what, what was done, and which configuration was in force.

CREATE TABLE audit (
    seq         INTEGER PRIMARY KEY,             -- without gaps from 1
    at          TEXT    NOT NULL,                -- UTC, ISO 8601
    actor       TEXT    NOT NULL,                -- account, token name, or 'agent'
    action      TEXT    NOT NULL,                -- 'device.add', 'sensor.open', ...
    object      TEXT    NOT NULL,
    outcome     TEXT    NOT NULL,
    details     TEXT    NOT NULL,                -- JSON without personal data
    personal    TEXT,                            -- JSON; NULL once the person is erased
    salt        BLOB,                            -- goes with `personal`
    subject     TEXT,                            -- pseudonym `personal` belongs to; NULL once erased
    commitment  BLOB,                            -- stays: HMAC of `personal` under `salt`
    mac         BLOB    NOT NULL
) STRICT;
CREATE INDEX audit_subject ON audit (subject) WHERE subject IS NOT NULL;

CREATE TABLE accounts (
    name          TEXT PRIMARY KEY,
    role          TEXT NOT NULL,
    password      TEXT,                          -- Argon2id; NULL for accounts of an identity provider
    totp_secret   BLOB,                          -- sealed
    failures      INTEGER NOT NULL DEFAULT 0,
    locked_until  TEXT,
    created_at    TEXT NOT NULL,
    disabled      INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE sessions (
    id_hash     BLOB PRIMARY KEY,                -- SHA-256 of the cookie's 256 random bits
    account     TEXT NOT NULL REFERENCES accounts (name) ON DELETE CASCADE,
    csrf        TEXT NOT NULL,
    created_at  TEXT NOT NULL,
    expires_at  TEXT NOT NULL,
    seen_at     TEXT NOT NULL,
    address     TEXT NOT NULL,
    agent       TEXT NOT NULL
) STRICT;

CREATE TABLE access_tokens (
    token_hash  BLOB PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    scopes      TEXT NOT NULL,                   -- space separated
    created_by  TEXT NOT NULL,
    created_at  TEXT NOT NULL,
    expires_at  TEXT NOT NULL,
    seen_at     TEXT,
    revoked_at  TEXT
) STRICT;

CREATE TABLE bootstrap (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    token_hash  BLOB NOT NULL,
    expires_at  TEXT NOT NULL,
    used_at     TEXT
) STRICT;

CREATE TABLE config_versions (
    version   INTEGER PRIMARY KEY,
    at        TEXT NOT NULL,
    actor     TEXT NOT NULL,
    reason    TEXT NOT NULL,
    document  TEXT NOT NULL,                     -- JSON without secrets
    secrets   BLOB                               -- sealed JSON: path -> secret
) STRICT;

CREATE TABLE idempotency (
    actor     TEXT NOT NULL,
    key       TEXT NOT NULL,
    request   BLOB NOT NULL,                     -- SHA-256 of method, path and body
    status    INTEGER,
    body      TEXT,
    at        TEXT NOT NULL,
    PRIMARY KEY (actor, key)
) STRICT;

-- What a device taught us where the configuration leaves it open; goes with the device.
CREATE TABLE device_pins (
    device      TEXT PRIMARY KEY,
    serial      TEXT NOT NULL,
    configured  TEXT NOT NULL,                   -- the address in the configuration at that time
    address     TEXT NOT NULL,                   -- where it was found
    learned_at  TEXT NOT NULL
) STRICT;
