-- A number is not given to anybody while a device still has to delete its earlier holder: asked at every new number.
CREATE INDEX device_removals_open ON device_removals (user_id) WHERE done_at IS NULL;
