-- Cost of an event in order by the number of observations that its record has already; in an empty database with
-- the extension:
--   psql -Xq -f test/bench/history.sql
-- 20 records of each depth, and events that change a field of each of them, one at a time; microseconds an event,
-- the median of 21 batches.
\set ON_ERROR_STOP on
SET search_path = contactsync, public;
SET client_min_messages = warning;
SELECT contactsync.add_source('crm', 'canonical') \gset
CREATE PROCEDURE pg_temp.fill(depth integer) LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO contactsync.inbox (source, source_id, kind, version, payload)
	SELECT 'crm', depth || '-' || r, CASE WHEN k = 1 THEN 'snapshot' ELSE 'patch' END, '2026-01-01'::timestamptz + k * interval '1 min',
		jsonb_build_object('emails', ARRAY['p' || depth || '-' || r || '@x.org'], 'title', 't' || k, 'last_name', 'L', 'first_name', 'F')
	FROM generate_series(1, depth) k, generate_series(1, 20) r;
	PERFORM contactsync.process();
END
$$;
CREATE FUNCTION pg_temp.cost(depth integer) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE
	started timestamptz;
	took numeric[];
BEGIN
	FOR n IN 1 .. 21 LOOP
		INSERT INTO contactsync.inbox (source, source_id, kind, version, payload)
		SELECT 'crm', depth || '-' || r, 'patch', clock_timestamp() - interval '1 hour', jsonb_build_object('title', 'n' || n)
		FROM generate_series(1, 20) r;
		started := clock_timestamp();
		PERFORM contactsync.process();
		took := took || (extract(epoch FROM clock_timestamp() - started) * 1e6 / 20)::numeric;
	END LOOP;
	RETURN (SELECT round(percentile_cont(0.5) WITHIN GROUP (ORDER BY t)::numeric, 0) FROM unnest(took) t);
END
$$;
CALL pg_temp.fill(1);
CALL pg_temp.fill(100);
CALL pg_temp.fill(10000);
VACUUM ANALYZE;
CREATE TEMP TABLE costs (pass integer, depth integer, us numeric);
-- once to warm up, and then in turn, so that what else the machine does hits all alike
INSERT INTO costs SELECT pass, depth, pg_temp.cost(depth) FROM generate_series(0, 5) pass, unnest('{1,100,10000}'::integer[]) depth ORDER BY 1, 2;
SELECT depth, percentile_cont(0.5) WITHIN GROUP (ORDER BY us) AS us_per_event,
	round((percentile_cont(0.5) WITHIN GROUP (ORDER BY us) / first_value(percentile_cont(0.5) WITHIN GROUP (ORDER BY us)) OVER (ORDER BY depth))::numeric, 2) AS of_first
FROM costs WHERE pass > 0 GROUP BY depth ORDER BY depth;
