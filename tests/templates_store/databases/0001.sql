BEGIN TRANSACTION;
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
INSERT INTO "consent" VALUES(1,'anna','face','attendance','2026-1',1772352000000000,1803888000000000,'abababababababababababababababababababababababababababababababab','consent','','valid',NULL);
INSERT INTO "consent" VALUES(2,'ben','face','attendance','2026-1',1772352000000000,1803888000000000,'abababababababababababababababababababababababababababababababab','consent','','valid',NULL);
CREATE TABLE dek (
    subject_id  TEXT PRIMARY KEY REFERENCES subject (subject_id),
    kek_id      TEXT NOT NULL REFERENCES kek (kek_id),
    wrapped     BLOB NOT NULL CHECK (length(wrapped) = 69)
) STRICT;
INSERT INTO "dek" VALUES('anna','085d5f4747ae5c4f',X'01085D5F4747AE5C4F4AB51CD854D3FE25607D55864AD8BD662760FBB42FE78535DE125EF8AE94ECA3A73AF7DCEC5005BCA63309FE89E79869F3A93C5B558AAE1DAED45A28');
INSERT INTO "dek" VALUES('ben','085d5f4747ae5c4f',X'01085D5F4747AE5C4F4C776ABEEECFD927876ACD4320C1626E05CB4F2844B9375AFA5B8F5C7E397CBA619865B27A873B7094A707B7F65ABAE962B68ACA8CA921C8CE89F6A4');
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
INSERT INTO "head" VALUES(1,'9145ed5876badebecd4e65c37341ae6b','acme',6,X'34C214369872FE71B0C09B36456E9EC99E41E07B40D9F64476FCF21EEE014102',X'01085D5F4747AE5C4FBB11E29070B5C47BC28C59C466C7FF676D07E6538E1FBDFF17A997541CCCDC1940E4D3178373865C407FE19F6B5B1C287D5DFC899B2BD98288A64D47',X'990B0DEEF592A09B46AFAB5B48037AD4BF8A80922413271087091FACAF1933C1',X'D2EECED8B62CE0010876B977A30010C5043CFB35F4AE12F1E68C3667AC597553');
CREATE TABLE kek (
    kek_id      TEXT PRIMARY KEY CHECK (length(kek_id) = 16),
    provider    TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('coming', 'current', 'retired')),
    created_us  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "kek" VALUES('085d5f4747ae5c4f','credential','current',1772352000000000);
CREATE TABLE migrations (name TEXT PRIMARY KEY, applied_us INTEGER NOT NULL) STRICT;
INSERT INTO "migrations" VALUES('0001_templates.sql',1772352000000000);
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
INSERT INTO "placement" VALUES(1,'anna','face','attendance',NULL,'ZK1','',1772352000000000,'placed',NULL,0,'');
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
CREATE TABLE receipt_location (
    receipt_id    TEXT NOT NULL REFERENCES receipt (receipt_id) ON DELETE CASCADE,
    location      TEXT NOT NULL CHECK (length(location) BETWEEN 1 AND 256),
    outcome       TEXT NOT NULL CHECK (outcome IN ('gone', 'pending')),
    at_us         INTEGER NOT NULL,
    PRIMARY KEY (receipt_id, location)
) STRICT, WITHOUT ROWID;
CREATE TABLE subject (
    subject_id  TEXT PRIMARY KEY CHECK (length(subject_id) BETWEEN 1 AND 128),
    digest      BLOB NOT NULL CHECK (length(digest) = 32)    -- keyed, over every row that names the subject
) STRICT;
INSERT INTO "subject" VALUES('anna',X'D9FCF8BBC1FD232B6436C2F815D379A57F958A15E1D281308BB1F49E5D5E7450');
INSERT INTO "subject" VALUES('ben',X'5AC51B7AD675DB464C89D83E2F9B25241EAC56655F077513EB4AFD8090A2CCB2');
CREATE TABLE switch (
    modality    TEXT NOT NULL CHECK (modality IN ('face', 'fingerprint', 'voice', 'iris')),
    purpose     TEXT NOT NULL CHECK (purpose IN ('attendance', 'access')),
    enabled     INTEGER NOT NULL DEFAULT 0 CHECK (enabled IN (0, 1)),
    changed_us  INTEGER,
    changed_by  TEXT,
    PRIMARY KEY (modality, purpose)
) STRICT, WITHOUT ROWID;
INSERT INTO "switch" VALUES('face','access',1,1772352000000000,'admin');
INSERT INTO "switch" VALUES('face','attendance',1,1772352000000000,'admin');
INSERT INTO "switch" VALUES('fingerprint','access',0,NULL,NULL);
INSERT INTO "switch" VALUES('fingerprint','attendance',0,NULL,NULL);
INSERT INTO "switch" VALUES('iris','access',0,NULL,NULL);
INSERT INTO "switch" VALUES('iris','attendance',0,NULL,NULL);
INSERT INTO "switch" VALUES('voice','access',0,NULL,NULL);
INSERT INTO "switch" VALUES('voice','attendance',0,NULL,NULL);
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
INSERT INTO "template" VALUES('anna/face/attendance/0','anna','face','attendance','yunet+sface/1',8,0,1,1772352000000000,X'01C9956445BDB9B37D6DBCD2E1168BB2444D6349D7E3791D22E83A4B43E1A988E59AC92C43CB441E5AA03436990267FBBF875E6D8ACC6F2231688C1A9F');
INSERT INTO "template" VALUES('anna/face/attendance/1','anna','face','attendance','yunet+sface/1',8,1,1,1772352000000000,X'011E5AFD95D805B1F306E1DFADAF5A2E18BF40A6D4E8FBC5CC57EBA453C969B462380F0065DAE03287DE2F818AD452A60F0F21E9A41CAD4061DB7E9DCA');
INSERT INTO "template" VALUES('ben/face/attendance/0','ben','face','attendance','yunet+sface/1',8,0,2,1772352000000000,X'0165BB9B2EE494412D09049AE48B4DEC288B6ADB42537859420D5B7B4716BAEFA63C67D04F6015087F4F47DCCD94F19DC595FA18236834B85FA6F86A58');
INSERT INTO "template" VALUES('ben/face/attendance/1','ben','face','attendance','yunet+sface/1',8,1,2,1772352000000000,X'0170ED78CEB421037DF47F356FEF71675907FF99D1662F5496BCE55E1169AFE9B26507E4541B8A224C85C0A5C330DFC3AF738454984A88772C14C3690D');
CREATE UNIQUE INDEX kek_current ON kek (state) WHERE state = 'current';
CREATE INDEX dek_kek ON dek (kek_id);
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
CREATE INDEX template_subject ON template (subject_id);
CREATE INDEX template_consent ON template (consent_id);
CREATE TRIGGER template_needs_consent BEFORE INSERT ON template
WHEN NOT EXISTS (
    SELECT 1 FROM consent c JOIN switch s ON s.modality = c.modality AND s.purpose = c.purpose
    WHERE c.consent_id = NEW.consent_id AND c.subject_id = NEW.subject_id AND c.modality = NEW.modality
      AND c.purpose = NEW.purpose AND c.state = 'valid' AND c.given_us <= now_us() + 300000000
      AND c.expires_us > now_us() AND s.enabled = 1)
BEGIN SELECT RAISE(ABORT, 'consent_missing: no valid consent, or the modality is switched off'); END;
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
CREATE VIEW usable AS
    SELECT t.* FROM template t
    JOIN consent c ON c.consent_id = t.consent_id AND c.state = 'valid'
    JOIN switch s ON s.modality = t.modality AND s.purpose = t.purpose AND s.enabled = 1
    WHERE c.expires_us > (SELECT now_us());
CREATE INDEX placement_open ON placement (state) WHERE state <> 'gone';
CREATE TRIGGER placement_needs_consent BEFORE INSERT ON placement
WHEN NOT EXISTS (
    SELECT 1 FROM consent c JOIN switch s ON s.modality = c.modality AND s.purpose = c.purpose
    WHERE c.subject_id = NEW.subject_id AND c.modality = NEW.modality AND c.purpose = NEW.purpose
      AND c.state = 'valid' AND c.expires_us > now_us() AND s.enabled = 1)
BEGIN SELECT RAISE(ABORT, 'consent_missing: no valid consent for a copy on a device'); END;
CREATE INDEX receipt_open ON receipt (requested_us) WHERE closed_us IS NULL;
CREATE INDEX receipt_subject ON receipt (subject_id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('consent',2);
INSERT INTO "sqlite_sequence" VALUES('placement',1);
COMMIT;
