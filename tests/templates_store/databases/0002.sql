BEGIN TRANSACTION;
CREATE TABLE chunk (
    chunk_id    INTEGER PRIMARY KEY CHECK (chunk_id > 0),   -- random, never used twice
    modality    TEXT NOT NULL,
    purpose     TEXT NOT NULL,
    pipeline    TEXT NOT NULL,
    dimension   INTEGER NOT NULL,
    members     INTEGER NOT NULL CHECK (members BETWEEN 1 AND 4096),
    kek_id      TEXT NOT NULL REFERENCES kek (kek_id),
    wrapped     BLOB NOT NULL CHECK (length(wrapped) = 69),
    sealed      BLOB NOT NULL
) STRICT;
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
INSERT INTO "dek" VALUES('anna','4ae5e7ae86c49327',X'014AE5E7AE86C49327466BFCDAD5E1335874DDB721C549967A4E8D06C17AD268D793EA00CF6DC7E17B65650E4B9EBB6116228E16421390656824111381D275E365D8587785');
INSERT INTO "dek" VALUES('ben','4ae5e7ae86c49327',X'014AE5E7AE86C493272D025E4A6FD6341D32A39AE2276D09F0459C4708A9668A253F30FEDBBAD149116CA78AED0584CAABFDCAA07DE18180A4D92D73F2713A91EE43A270B6');
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
INSERT INTO "head" VALUES(1,'4ff5703526d8eb2b8cf2be80a34ff358','acme',5,X'C70470BFED6499D1F2985F24CF766899EAAF8E91E550D8D9CB38AD732D4280A7',X'014AE5E7AE86C49327EA251B9196AC92ADD3D18E5C7DE59A2D4F3847E367F3197C54206DD1FD02A0A8016C72CAC8E480A9F4AA49992399A5E41A4BFF683C8BBFEA18697248',X'12F881E30DBF078C17DCE392BFB6F708BB94712109BF3AF2D72F8C2EFD9AB343',X'792B4F51AB932C77A8ACA2724A959285AB8CBBD4E90C1C601724EBA53251069C');
CREATE TABLE kek (
    kek_id      TEXT PRIMARY KEY CHECK (length(kek_id) = 16),
    provider    TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('coming', 'current', 'retired')),
    created_us  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "kek" VALUES('4ae5e7ae86c49327','credential','current',1772352000000000);
CREATE TABLE migrations (name TEXT PRIMARY KEY, applied_us INTEGER NOT NULL) STRICT;
INSERT INTO "migrations" VALUES('0001_templates.sql',1772352000000000);
INSERT INTO "migrations" VALUES('0002_chunks.sql',1772352000000000);
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
INSERT INTO "subject" VALUES('anna',X'4A1F1DEB46052E024FAC86B23EEEB80D2D3A0E16A820132B81ACBCA0BBB00019');
INSERT INTO "subject" VALUES('ben',X'7CE552D4A75F6BCFA2EBD8729087B08CBD75807B3D30C5AE498BF0D27192808E');
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
    sealed      BLOB NOT NULL CHECK (length(sealed) BETWEEN 30 AND 65565), chunk_id INTEGER REFERENCES chunk (chunk_id) DEFERRABLE INITIALLY DEFERRED,
    FOREIGN KEY (consent_id, subject_id, modality, purpose)
        REFERENCES consent (consent_id, subject_id, modality, purpose)
) STRICT;
INSERT INTO "template" VALUES('anna/face/attendance/0','anna','face','attendance','yunet+sface/1',8,0,1,1772352000000000,X'018191B7E688E52036912F7722AD51623312179F24C999175E08AEB0A8432DC6F4104F2926572AD7EB27BE6CAC08A9258CFAE6BD57FE842D4B17AAEBF8',NULL);
INSERT INTO "template" VALUES('anna/face/attendance/1','anna','face','attendance','yunet+sface/1',8,1,1,1772352000000000,X'01D07E40BAA2E384320980FDAA00F1EE774478B79CE3FA5956AEC7FC7BCB6A3235FABABDB3F82BF6640B0BFD5985FF8ACE36D02CBDA3CBF1A73C3A0387',NULL);
INSERT INTO "template" VALUES('ben/face/attendance/0','ben','face','attendance','yunet+sface/1',8,0,2,1772352000000000,X'01D5876D977FF152EF93C5A0F5990A884A8D92CE1C8B387437B8117274626A8A766E76223A6A4D6C61DF3101B70EAAE16C2689A6D990086D4D6D5AFF14',NULL);
INSERT INTO "template" VALUES('ben/face/attendance/1','ben','face','attendance','yunet+sface/1',8,1,2,1772352000000000,X'0193566B2BFEA076CFD0E05EE4DA567BCB2391A02E2A0D00B9EA9C3BACEDE4BCA001B7A75E19299377D818D92838A70001D2F6755AA5BB079B4788B83F',NULL);
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
CREATE INDEX placement_open ON placement (state) WHERE state <> 'gone';
CREATE TRIGGER placement_needs_consent BEFORE INSERT ON placement
WHEN NOT EXISTS (
    SELECT 1 FROM consent c JOIN switch s ON s.modality = c.modality AND s.purpose = c.purpose
    WHERE c.subject_id = NEW.subject_id AND c.modality = NEW.modality AND c.purpose = NEW.purpose
      AND c.state = 'valid' AND c.expires_us > now_us() AND s.enabled = 1)
BEGIN SELECT RAISE(ABORT, 'consent_missing: no valid consent for a copy on a device'); END;
CREATE INDEX receipt_open ON receipt (requested_us) WHERE closed_us IS NULL;
CREATE INDEX receipt_subject ON receipt (subject_id);
CREATE INDEX chunk_search ON chunk (modality, purpose, pipeline);
CREATE INDEX chunk_kek ON chunk (kek_id);
CREATE INDEX template_chunk ON template (chunk_id);
CREATE INDEX template_journal ON template (modality, purpose, pipeline, chunk_id, dimension);
CREATE VIEW usable AS
    SELECT t.* FROM template t
    JOIN consent c ON c.consent_id = t.consent_id AND c.state = 'valid'
    JOIN switch s ON s.modality = t.modality AND s.purpose = t.purpose AND s.enabled = 1
    WHERE c.expires_us > (SELECT now_us());
CREATE TRIGGER chunk_needs_its_templates BEFORE INSERT ON chunk
WHEN NEW.chunk_id IS NULL OR NEW.members <> (
    SELECT count(*) FROM usable u
    WHERE u.chunk_id = NEW.chunk_id AND u.modality = NEW.modality AND u.purpose = NEW.purpose
      AND u.pipeline = NEW.pipeline AND u.dimension = NEW.dimension)
BEGIN SELECT RAISE(ABORT, 'consent_missing: a chunk holds consented templates only'); END;
CREATE TRIGGER chunk_is_never_changed BEFORE UPDATE OF modality, purpose, pipeline, dimension, members, sealed ON chunk
BEGIN SELECT RAISE(ABORT, 'consent_missing: a chunk is replaced, never changed'); END;
CREATE TRIGGER template_starts_in_the_journal BEFORE INSERT ON template WHEN NEW.chunk_id IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'consent_missing: a new template starts in the journal'); END;
CREATE TRIGGER template_moves_by_packing BEFORE UPDATE OF chunk_id ON template
WHEN NEW.chunk_id IS NOT NULL AND EXISTS (SELECT 1 FROM chunk WHERE chunk_id = NEW.chunk_id)
BEGIN SELECT RAISE(ABORT, 'consent_missing: a finished chunk takes nobody in'); END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('consent',2);
INSERT INTO "sqlite_sequence" VALUES('placement',1);
COMMIT;
