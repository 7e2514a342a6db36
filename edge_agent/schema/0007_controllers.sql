-- Controllers that decide by themselves: PINs they ask for, and the time profiles they keep for us.

-- PINs for such controllers alone, sealed; what a PIN is checked against here is its Argon2id hash as before.
CREATE TABLE sealed_pins (
    subject  TEXT PRIMARY KEY REFERENCES pins (subject) ON DELETE CASCADE,
    sealed   BLOB NOT NULL
) STRICT;

-- Which number on which device stands for which schedules; only these are written by us.
CREATE TABLE device_profiles (
    device     TEXT NOT NULL,
    number     INTEGER NOT NULL,
    schedules  TEXT NOT NULL,                         -- JSON list, sorted
    position   INTEGER NOT NULL,                      -- 0 is what cards name; each continues in the next
    PRIMARY KEY (device, number)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER pins_set AFTER INSERT ON pins BEGIN UPDATE people_changes SET number = number + 1; END;
CREATE TRIGGER pins_removed AFTER DELETE ON pins BEGIN UPDATE people_changes SET number = number + 1; END;
CREATE TRIGGER door_ordered BEFORE INSERT ON door_states
WHEN NEW.ordered IS NOT (SELECT ordered FROM door_states WHERE door = NEW.door)
BEGIN UPDATE people_changes SET number = number + 1; END;
