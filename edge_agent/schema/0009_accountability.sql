-- Acts that need a second person, what happened in an incident, accounts whose password is somebody else's.

CREATE TABLE acts (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL,                   -- 'door.open', 'person.export', ...
    asked       TEXT NOT NULL,                   -- JSON: all it takes to carry it out; never a secret
    person      TEXT NOT NULL,                   -- the account that asked, itself or through a token
    asked_at    TEXT NOT NULL,
    expires_at  TEXT NOT NULL,
    state       TEXT NOT NULL,                   -- waiting, approved, refused, done, failed, expired
    decided_by  TEXT NOT NULL DEFAULT '',
    decided_at  TEXT,
    outcome     TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE UNIQUE INDEX acts_open ON acts (name, person, asked) WHERE state IN ('waiting', 'approved');

ALTER TABLE accounts ADD COLUMN password_by TEXT NOT NULL DEFAULT '';  -- '': the person chose it alone
ALTER TABLE accounts ADD COLUMN identity TEXT;                         -- issuer and subject at the identity provider
CREATE UNIQUE INDEX accounts_identity ON accounts (identity) WHERE identity IS NOT NULL;

CREATE TABLE incidents (
    id           TEXT PRIMARY KEY,
    kind         TEXT NOT NULL,
    signal       TEXT NOT NULL,                  -- what opened it; the same signal opens one incident
    note         TEXT NOT NULL DEFAULT '',
    since        TEXT NOT NULL,                  -- the span in which data may be affected
    until        TEXT,
    opened_at    TEXT NOT NULL,
    opened_by    TEXT NOT NULL,
    switches     TEXT,                           -- JSON of the modalities as they were before capture was frozen
    keys_at      TEXT,                           -- when keys and credentials were exchanged
    closed_at    TEXT,
    closed_by    TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE UNIQUE INDEX incidents_signal ON incidents (signal);
