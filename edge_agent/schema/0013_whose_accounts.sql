-- Whose hands an account has been in, which second-factor code it last accepted, failed sign-ins of unknown names.

ALTER TABLE accounts ADD COLUMN made_by TEXT NOT NULL DEFAULT '';       -- who made it or last reset its sign-in, and
                                                                        -- who did so to them; space separated
ALTER TABLE accounts ADD COLUMN totp_step INTEGER NOT NULL DEFAULT 0;   -- RFC 6238 time step of the last code

UPDATE accounts SET made_by = coalesce(
    nullif(password_by, ''),
    (SELECT actor FROM audit
      WHERE object = accounts.name AND actor != accounts.name AND outcome = 'ok'
        AND (action = 'account.add' OR (action = 'account.change'
             AND (instr(details, '"password"') OR instr(details, '"second_factor"'))))
      ORDER BY seq DESC LIMIT 1),
    '');

CREATE TABLE unknown_sign_ins (
    name_hash    BLOB PRIMARY KEY,                -- SHA-256: a password typed into the wrong field must not rest here
    failures     INTEGER NOT NULL DEFAULT 0,
    locked_until TEXT,
    at           TEXT NOT NULL                    -- of the last failure; the oldest make room
) STRICT;
CREATE INDEX unknown_sign_ins_at ON unknown_sign_ins (at);
