-- What was taken back or erased begins again only with a consent that was given later. Receipts count too: somebody may
-- withdraw before anything was stored. A receipt dated more than the five minutes ahead that a consent may be was
-- written by a clock that has been set back since, and says nothing about what came first.
CREATE TRIGGER consent_is_given_anew BEFORE INSERT ON consent
WHEN EXISTS (
    SELECT 1 FROM receipt r
    WHERE r.subject_id = NEW.subject_id AND r.modality IN ('', NEW.modality) AND r.purpose IN ('', NEW.purpose)
      AND r.requested_us >= NEW.given_us AND r.requested_us <= now_us() + 300000000)
  OR EXISTS (  -- the very same act, whatever the clock says
    SELECT 1 FROM consent c
    WHERE c.subject_id = NEW.subject_id AND c.modality = NEW.modality AND c.purpose = NEW.purpose
      AND c.state IN ('withdrawn', 'ended') AND c.given_us = NEW.given_us)
BEGIN SELECT RAISE(ABORT, 'consent_missing: given before the last withdrawal or erasure; a new consent is needed'); END;
