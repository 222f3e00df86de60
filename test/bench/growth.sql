-- What an event costs once there are :size contacts; run with growing sizes in one
-- database, which is filled as it goes.  5000 events at a time: records that are
-- new, and changes of records from all over.
SET search_path = public, contactsync;
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS contactsync;
SELECT add_source('bench', 'canonical') WHERE NOT EXISTS (SELECT FROM sources) \g /dev/null
CREATE TABLE IF NOT EXISTS took (size integer, what text, us numeric);
CREATE OR REPLACE FUNCTION events(ids integer[], version timestamptz, title text) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_agg(jsonb_build_object('source_id', 'r' || i, 'version', version, 'payload', jsonb_build_object(
		'first_name', 'First' || i, 'last_name', 'Last' || i, 'company', 'Company ' || i % 1000, 'title', title,
		'emails', jsonb_build_array('person' || i || '@example' || i % 100 || '.com'),
		'phones', jsonb_build_array('+49151' || 20000000 + i), 'tags', jsonb_build_array('a', 'b'), 'metadata', jsonb_build_object('k', i))))
	FROM unnest(ids) i
$$;
CREATE OR REPLACE PROCEDURE fill(size integer) LANGUAGE plpgsql AS $$
DECLARE
	have integer := (SELECT count(*) FROM contactsync.contacts);
BEGIN
	WHILE have < size LOOP
		PERFORM contactsync.ingest_batch('bench', public.events(ARRAY(SELECT generate_series(have + 1, least(have + 5000, size))), '2026-01-01', 'Title'));
		PERFORM contactsync.process();
		COMMIT;
		have := least(have + 5000, size);
	END LOOP;
END
$$;
CREATE OR REPLACE PROCEDURE measure(what text, size integer, n integer) LANGUAGE plpgsql AS $$
DECLARE
	began timestamptz;
	ids integer[];
BEGIN
	-- the first of each kind brings pages into memory and is not counted
	FOR t IN 0 .. 5 LOOP
		IF what = 'new' THEN
			ids := ARRAY(SELECT generate_series(size + t * n + 1, size + t * n + n));
		ELSE
			ids := ARRAY(SELECT DISTINCT (hashint4(i + t * n) & 2147483647) % size + 1 FROM generate_series(1, n) i);
		END IF;
		PERFORM contactsync.ingest_batch('bench', public.events(ids, CASE WHEN what = 'new' THEN '2026-01-01' ELSE '2026-02-01'::date + t END, 'Title ' || t));
		COMMIT;
		began := clock_timestamp();
		PERFORM contactsync.process();
		COMMIT;
		IF t > 0 THEN
			INSERT INTO public.took VALUES (size, what, extract(epoch FROM clock_timestamp() - began) * 1000000 / cardinality(ids));
			COMMIT;
		END IF;
	END LOOP;
END
$$;
CALL fill(:size);
VACUUM (ANALYZE);
CHECKPOINT;
CALL measure('change', :size, 5000);
CALL measure('new', :size, 5000);
SELECT what, size AS contacts, round(us, 1) AS "us an event", round(us / first_value(us) OVER (PARTITION BY what ORDER BY size), 2) AS "of the first's"
FROM (SELECT what, size, (percentile_cont(0.5) WITHIN GROUP (ORDER BY us))::numeric AS us FROM took GROUP BY what, size) m
ORDER BY what DESC, size;
