-- Search chunks: many templates sealed together, so that a gallery opens in one go. A copy for speed: `template`
-- stays the truth, and a template without a chunk is in the journal.

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
CREATE INDEX chunk_search ON chunk (modality, purpose, pipeline);
CREATE INDEX chunk_kek ON chunk (kek_id);

ALTER TABLE template ADD COLUMN chunk_id INTEGER REFERENCES chunk (chunk_id) DEFERRABLE INITIALLY DEFERRED;
CREATE INDEX template_chunk ON template (chunk_id);
CREATE INDEX template_journal ON template (modality, purpose, pipeline, chunk_id, dimension);

DROP VIEW usable;
CREATE VIEW usable AS
    SELECT t.* FROM template t
    JOIN consent c ON c.consent_id = t.consent_id AND c.state = 'valid'
    JOIN switch s ON s.modality = t.modality AND s.purpose = t.purpose AND s.enabled = 1
    WHERE c.expires_us > (SELECT now_us());  -- asked once a query, not once a row

-- A chunk holds exactly the templates that name it, each of them consented: no back door for others.
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
