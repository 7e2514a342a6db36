-- Commands for terminals that call us, and when people or their rights last changed.

CREATE TABLE terminal_commands (
    command_id  INTEGER PRIMARY KEY,
    serial      TEXT NOT NULL,
    sealed      BLOB NOT NULL,                        -- the command's words; they hold names, cards and PINs
    deadline    TEXT NOT NULL,
    repeatable  INTEGER NOT NULL,
    state       TEXT NOT NULL,
    sent_at     TEXT,
    sends       INTEGER NOT NULL
) STRICT;
CREATE INDEX terminal_commands_serial ON terminal_commands (serial, command_id);

-- One row each: the next free command number, and a counter of changes.
CREATE TABLE terminal_command_numbers (next INTEGER NOT NULL) STRICT;
CREATE TABLE people_changes (number INTEGER NOT NULL) STRICT;
INSERT INTO people_changes VALUES (0);

CREATE TRIGGER people_added AFTER INSERT ON people BEGIN UPDATE people_changes SET number = number + 1; END;
CREATE TRIGGER people_changed AFTER UPDATE ON people BEGIN UPDATE people_changes SET number = number + 1; END;
CREATE TRIGGER people_removed AFTER DELETE ON people BEGIN UPDATE people_changes SET number = number + 1; END;
CREATE TRIGGER numbers_added AFTER INSERT ON device_users BEGIN UPDATE people_changes SET number = number + 1; END;
CREATE TRIGGER numbers_removed AFTER DELETE ON device_users BEGIN UPDATE people_changes SET number = number + 1; END;
CREATE TRIGGER cards_added AFTER INSERT ON cards BEGIN UPDATE people_changes SET number = number + 1; END;
CREATE TRIGGER cards_removed AFTER DELETE ON cards BEGIN UPDATE people_changes SET number = number + 1; END;
CREATE TRIGGER rights_added AFTER INSERT ON access_people BEGIN UPDATE people_changes SET number = number + 1; END;
CREATE TRIGGER rights_changed AFTER UPDATE ON access_people BEGIN UPDATE people_changes SET number = number + 1; END;
CREATE TRIGGER members_added AFTER INSERT ON access_members BEGIN UPDATE people_changes SET number = number + 1; END;
CREATE TRIGGER members_removed AFTER DELETE ON access_members BEGIN UPDATE people_changes SET number = number + 1; END;
