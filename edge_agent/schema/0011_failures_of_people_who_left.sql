-- Failures stayed on record after the person whose they were had left, and met whoever came under that subject again.
DELETE FROM attempts WHERE place LIKE 'person:%'
    AND substr(place, 8, instr(place, '/') - 8) NOT IN (SELECT subject FROM people);
UPDATE alarms
    SET place = 'person:/' || substr(place, instr(place, '/') + 1),
        cleared_at = coalesce(cleared_at, strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now'))
    WHERE kind = 'attempts' AND place LIKE 'person:%'
        AND substr(place, 8, instr(place, '/') - 8) NOT IN (SELECT subject FROM people);
