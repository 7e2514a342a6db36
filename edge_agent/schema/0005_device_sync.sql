-- What devices that decide or match by themselves should hold.

-- Card numbers for such devices alone, sealed; looking a card up goes by its keyed hash as before.
CREATE TABLE sealed_cards (
    digest  BLOB PRIMARY KEY REFERENCES cards (digest) ON DELETE CASCADE,
    sealed  BLOB NOT NULL
) STRICT;

-- Whom we put on which device, by keyed hash of the device's own key: only these may be removed by us.
CREATE TABLE device_people (
    device  TEXT NOT NULL,
    digest  BLOB NOT NULL,
    PRIMARY KEY (device, digest)
) STRICT, WITHOUT ROWID;
