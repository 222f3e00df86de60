-- What it costs to compute the whole state anew: n contacts of 10/3 records each,
-- beside jsonb_agg of the same rows by contact.
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS contactsync CASCADE;
DROP TABLE IF EXISTS rows, took;
CREATE EXTENSION contactsync;
SET search_path = public, contactsync;
SELECT count(add_source('rebuild_' || s, 'canonical')) AS sources FROM unnest(ARRAY['a', 'b', 'c', 'd']) s;
SELECT set_policy('job', 'source_priority', '{rebuild_b}');
CREATE TEMP VIEW payload AS
SELECT s.source, i, jsonb_build_object('first_name', 'First' || i, 'last_name', 'Last' || i, 'nickname', 'Nick' || i % 50, 'prefix', 'Dr',
	'company', 'Company ' || (i + s.k) % 1000, 'department', 'Department ' || i % 17, 'title', 'Title ' || s.k,
	'birthday', '1970-01-' || 10 + i % 20, 'note', 'Met at the fair of ' || i,
	'emails', jsonb_build_array('person' || i || '@example' || i % 100 || '.com', jsonb_build_object('address', 'p' || i || '.' || s.k || '@home.example', 'type', 'home')),
	'phones', jsonb_build_array(jsonb_build_object('number', '+1650253' || lpad((i % 10000)::text, 4, '0'), 'type', 'work')),
	'addresses', jsonb_build_array(jsonb_build_object('street', i || ' Main St', 'city', 'Springfield', 'postal_code', lpad((i % 90000)::text, 5, '0'), 'country', 'US')),
	'urls', jsonb_build_array('https://example.com/' || i), 'tags', jsonb_build_array('a', 'b' || s.k), 'metadata', jsonb_build_object('k', i, 'owner', 'o' || i % 9)) AS payload
FROM generate_series(1, :n) i, (VALUES ('rebuild_a', 0), ('rebuild_b', 1), ('rebuild_c', 2), ('rebuild_d', 3)) s (source, k) WHERE k < 3 OR i % 3 = 0;
SELECT count(ingest_batch(source, events)) AS batches FROM (
	SELECT source, jsonb_agg(jsonb_build_object('source_id', i, 'version', '2026-01-01T00:00:00Z', 'payload', payload)) AS events
	FROM payload GROUP BY source, i / 1000) b;
CALL drain();
CREATE TABLE rows AS
SELECT r.contact_id, o.payload FROM observations o JOIN records r ON r.id = o.record_id AND r.tenant_id = o.tenant_id;
VACUUM (ANALYZE);
SELECT (SELECT count(*) FROM records) AS records, (SELECT count(*) FROM contacts) AS contacts;
CREATE TABLE took (o integer GENERATED ALWAYS AS IDENTITY, what text, seconds numeric);
CREATE OR REPLACE PROCEDURE bench(what text, statement text) LANGUAGE plpgsql AS $$
DECLARE
	began timestamptz := clock_timestamp();
BEGIN
	EXECUTE statement;
	INSERT INTO public.took (what, seconds) SELECT $1, extract(epoch FROM clock_timestamp() - began);
	COMMIT;
END
$$;
SELECT count(x.a) FROM (SELECT contact_id, jsonb_agg(payload) AS a FROM rows GROUP BY contact_id) x;
CALL bench('jsonb_agg by contact', 'SELECT count(x.a) FROM (SELECT contact_id, jsonb_agg(payload) AS a FROM public.rows GROUP BY contact_id) x');
CALL bench('rebuild(dry_run), 2 workers', 'SELECT count(*) FROM contactsync.rebuild()');
CALL bench('jsonb_agg by contact', 'SELECT count(x.a) FROM (SELECT contact_id, jsonb_agg(payload) AS a FROM public.rows GROUP BY contact_id) x');
CALL bench('what_if, 2 workers', 'SELECT count(*) FROM contactsync.what_if(contactsync.current_policy())');
SET max_parallel_maintenance_workers = 0;
CALL bench('rebuild(dry_run), no worker', 'SELECT count(*) FROM contactsync.rebuild()');
SELECT 1 / (count(*) = 0)::integer AS sound FROM verify() \gset
SELECT what, round(seconds, 2) AS seconds, round(seconds / (SELECT min(seconds) FROM took WHERE what LIKE 'jsonb%'), 2) AS "of jsonb_agg's time"
FROM took ORDER BY o;
