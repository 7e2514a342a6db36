-- Sealed templates and what allows them to be here. Times are microseconds since 1970, UTC; now_us() is the
-- application's clock, so a connection that is not the application's cannot insert at all.

CREATE TABLE head (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    store_id    TEXT NOT NULL,
    tenant      TEXT NOT NULL,
    version     INTEGER NOT NULL,            -- grows by one with every transaction
    total       BLOB NOT NULL,               -- sum of the subjects' digests modulo 2^256
    root        BLOB,                        -- wrapped root secret
    public_key  BLOB,                        -- Ed25519; signs receipts and the anchor
    mac         BLOB                         -- over all of this, the switches and the KEK list
) STRICT;

CREATE TABLE kek (
    kek_id      TEXT PRIMARY KEY CHECK (length(kek_id) = 16),
    provider    TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('coming', 'current', 'retired')),
    created_us  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX kek_current ON kek (state) WHERE state = 'current';

-- The enterprise's switches: four modalities, two purposes, all off.
CREATE TABLE switch (
    modality    TEXT NOT NULL CHECK (modality IN ('face', 'fingerprint', 'voice', 'iris')),
    purpose     TEXT NOT NULL CHECK (purpose IN ('attendance', 'access')),
    enabled     INTEGER NOT NULL DEFAULT 0 CHECK (enabled IN (0, 1)),
    changed_us  INTEGER,
    changed_by  TEXT,
    PRIMARY KEY (modality, purpose)
) STRICT, WITHOUT ROWID;
INSERT INTO switch (modality, purpose)
    SELECT m.column1, p.column1
    FROM (VALUES ('face'), ('fingerprint'), ('voice'), ('iris')) AS m, (VALUES ('attendance'), ('access')) AS p;

CREATE TABLE subject (
    subject_id  TEXT PRIMARY KEY CHECK (length(subject_id) BETWEEN 1 AND 128),
    digest      BLOB NOT NULL CHECK (length(digest) = 32)    -- keyed, over every row that names the subject
) STRICT;

-- One data-encryption key per subject; deleting the row is what erases.
CREATE TABLE dek (
    subject_id  TEXT PRIMARY KEY REFERENCES subject (subject_id),
    kek_id      TEXT NOT NULL REFERENCES kek (kek_id),
    wrapped     BLOB NOT NULL CHECK (length(wrapped) = 69)
) STRICT;
CREATE INDEX dek_kek ON dek (kek_id);

CREATE TABLE consent (
    consent_id      INTEGER PRIMARY KEY AUTOINCREMENT,
    subject_id      TEXT NOT NULL REFERENCES subject (subject_id),
    modality        TEXT NOT NULL,
    purpose         TEXT NOT NULL,
    notice_version  TEXT NOT NULL CHECK (length(notice_version) BETWEEN 1 AND 128),
    given_us        INTEGER NOT NULL,
    expires_us      INTEGER NOT NULL CHECK (expires_us > given_us),
    evidence_sha256 TEXT NOT NULL CHECK (length(evidence_sha256) = 64 AND evidence_sha256 NOT GLOB '*[^0-9a-f]*'),
    legal_basis     TEXT NOT NULL DEFAULT 'consent' CHECK (length(legal_basis) BETWEEN 1 AND 64),
    basis_reference TEXT NOT NULL DEFAULT '',
    state           TEXT NOT NULL CHECK (state IN ('valid', 'stale', 'withdrawn', 'ended', 'superseded')),
    ended_us        INTEGER CHECK ((ended_us IS NULL) = (state IN ('valid', 'stale'))),
    CHECK (legal_basis = 'consent' OR length(basis_reference) > 0),
    FOREIGN KEY (modality, purpose) REFERENCES switch (modality, purpose),
    UNIQUE (consent_id, subject_id, modality, purpose)
) STRICT;
CREATE UNIQUE INDEX consent_live ON consent (subject_id, modality, purpose) WHERE state IN ('valid', 'stale');
CREATE INDEX consent_subject ON consent (subject_id);
CREATE INDEX consent_due ON consent (expires_us) WHERE state IN ('valid', 'stale');

CREATE TRIGGER consent_begins_valid BEFORE INSERT ON consent
WHEN NEW.state <> 'valid' OR NEW.expires_us <= now_us() OR NEW.given_us > now_us() + 300000000
BEGIN SELECT RAISE(ABORT, 'consent_missing: a consent begins valid, given in the past, expiring in the future'); END;

CREATE TRIGGER consent_is_a_record BEFORE UPDATE ON consent
WHEN (NEW.consent_id, NEW.subject_id, NEW.modality, NEW.purpose, NEW.notice_version, NEW.given_us, NEW.expires_us,
      NEW.evidence_sha256, NEW.legal_basis, NEW.basis_reference)
  IS NOT (OLD.consent_id, OLD.subject_id, OLD.modality, OLD.purpose, OLD.notice_version, OLD.given_us, OLD.expires_us,
      OLD.evidence_sha256, OLD.legal_basis, OLD.basis_reference)
BEGIN SELECT RAISE(ABORT, 'consent_missing: what a person agreed to never changes'); END;

CREATE TRIGGER consent_ends_once BEFORE UPDATE OF state ON consent
WHEN NOT ((OLD.state = 'valid' AND NEW.state <> 'valid')
       OR (OLD.state = 'stale' AND NEW.state NOT IN ('valid', 'stale')))
BEGIN SELECT RAISE(ABORT, 'consent_missing: a consent that ended stays ended'); END;

CREATE TABLE template (
    template_id TEXT PRIMARY KEY CHECK (length(template_id) BETWEEN 1 AND 128),
    subject_id  TEXT NOT NULL REFERENCES dek (subject_id),
    modality    TEXT NOT NULL,
    purpose     TEXT NOT NULL,
    pipeline    TEXT NOT NULL CHECK (length(pipeline) BETWEEN 1 AND 128),
    dimension   INTEGER NOT NULL CHECK (dimension BETWEEN 0 AND 4096),
    position    INTEGER NOT NULL CHECK (position BETWEEN 0 AND 65535),
    consent_id  INTEGER NOT NULL,
    created_us  INTEGER NOT NULL,
    sealed      BLOB NOT NULL CHECK (length(sealed) BETWEEN 30 AND 65565),
    FOREIGN KEY (consent_id, subject_id, modality, purpose)
        REFERENCES consent (consent_id, subject_id, modality, purpose)
) STRICT;
CREATE INDEX template_subject ON template (subject_id);
CREATE INDEX template_consent ON template (consent_id);

CREATE TRIGGER template_needs_consent BEFORE INSERT ON template
WHEN NOT EXISTS (
    SELECT 1 FROM consent c JOIN switch s ON s.modality = c.modality AND s.purpose = c.purpose
    WHERE c.consent_id = NEW.consent_id AND c.subject_id = NEW.subject_id AND c.modality = NEW.modality
      AND c.purpose = NEW.purpose AND c.state = 'valid' AND c.given_us <= now_us() + 300000000
      AND c.expires_us > now_us() AND s.enabled = 1)
BEGIN SELECT RAISE(ABORT, 'consent_missing: no valid consent, or the modality is switched off'); END;

-- A renewed consent takes over the templates of the one it renews; nothing else about a template changes.
CREATE TRIGGER template_is_a_record BEFORE UPDATE ON template
WHEN (NEW.template_id, NEW.subject_id, NEW.modality, NEW.purpose, NEW.pipeline, NEW.dimension, NEW.position,
      NEW.created_us)
  IS NOT (OLD.template_id, OLD.subject_id, OLD.modality, OLD.purpose, OLD.pipeline, OLD.dimension, OLD.position,
      OLD.created_us)
BEGIN SELECT RAISE(ABORT, 'consent_missing: a template never becomes another'); END;

CREATE TRIGGER template_follows_renewal BEFORE UPDATE OF consent_id ON template
WHEN NOT EXISTS (
    SELECT 1 FROM consent c WHERE c.consent_id = NEW.consent_id AND c.state = 'valid' AND c.expires_us > now_us())
BEGIN SELECT RAISE(ABORT, 'consent_missing: templates follow a valid consent only'); END;

CREATE TRIGGER template_is_sealed_anew BEFORE UPDATE OF sealed ON template
WHEN length(NEW.sealed) <> length(OLD.sealed) OR NOT EXISTS (
    SELECT 1 FROM consent c WHERE c.consent_id = NEW.consent_id AND c.state IN ('valid', 'stale'))
BEGIN SELECT RAISE(ABORT, 'consent_missing: only a template somebody still agrees to is sealed anew'); END;

-- What may be opened now.
CREATE VIEW usable AS
    SELECT t.* FROM template t
    JOIN consent c ON c.consent_id = t.consent_id AND c.state = 'valid'
    JOIN switch s ON s.modality = t.modality AND s.purpose = t.purpose AND s.enabled = 1
    WHERE c.expires_us > (SELECT now_us());  -- asked once a query, not once a row

-- A copy on a device: in its memory, so that it matches by itself.
CREATE TABLE placement (
    placement_id  INTEGER PRIMARY KEY AUTOINCREMENT,
    subject_id    TEXT NOT NULL REFERENCES subject (subject_id),
    modality      TEXT NOT NULL,
    purpose       TEXT NOT NULL,
    template_id   TEXT,
    device_serial TEXT NOT NULL CHECK (length(device_serial) BETWEEN 1 AND 128),
    slot          TEXT NOT NULL DEFAULT '',       -- the device's own number for it
    placed_us     INTEGER NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('placed', 'erasing', 'gone')),
    ended_us      INTEGER,
    attempts      INTEGER NOT NULL DEFAULT 0,
    last_error    TEXT NOT NULL DEFAULT '',
    UNIQUE (subject_id, modality, purpose, device_serial, slot)
) STRICT;
CREATE INDEX placement_open ON placement (state) WHERE state <> 'gone';

CREATE TRIGGER placement_needs_consent BEFORE INSERT ON placement
WHEN NOT EXISTS (
    SELECT 1 FROM consent c JOIN switch s ON s.modality = c.modality AND s.purpose = c.purpose
    WHERE c.subject_id = NEW.subject_id AND c.modality = NEW.modality AND c.purpose = NEW.purpose
      AND c.state = 'valid' AND c.expires_us > now_us() AND s.enabled = 1)
BEGIN SELECT RAISE(ABORT, 'consent_missing: no valid consent for a copy on a device'); END;

CREATE TABLE receipt (
    receipt_id    TEXT PRIMARY KEY,
    subject_id    TEXT NOT NULL REFERENCES subject (subject_id),
    modality      TEXT NOT NULL DEFAULT '',       -- '' is all of them
    purpose       TEXT NOT NULL DEFAULT '',
    reason        TEXT NOT NULL,
    actor         TEXT NOT NULL,
    requested_us  INTEGER NOT NULL,
    kek_id        TEXT NOT NULL,                  -- current then: once it is destroyed, no earlier copy opens
    revision      INTEGER NOT NULL,
    closed_us     INTEGER,
    signature     BLOB NOT NULL CHECK (length(signature) = 64)
) STRICT;
CREATE INDEX receipt_open ON receipt (requested_us) WHERE closed_us IS NULL;
CREATE INDEX receipt_subject ON receipt (subject_id);

CREATE TABLE receipt_location (
    receipt_id    TEXT NOT NULL REFERENCES receipt (receipt_id) ON DELETE CASCADE,
    location      TEXT NOT NULL CHECK (length(location) BETWEEN 1 AND 256),
    outcome       TEXT NOT NULL CHECK (outcome IN ('gone', 'pending')),
    at_us         INTEGER NOT NULL,
    PRIMARY KEY (receipt_id, location)
) STRICT, WITHOUT ROWID;
