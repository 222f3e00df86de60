-- What an event costs: taken in and applied, for contacts that are new, the same once
-- more, and changed; and what COPY makes of the same payloads in a table of jsonb
-- with three indexes, and what plpgsql would (plain.sql).
SET search_path = public, contactsync;
SET client_min_messages = warning;
CREATE EXTENSION contactsync;
SELECT add_source('bench', 'canonical') \gset
CREATE TABLE payloads AS
SELECT i, jsonb_build_object('first_name', 'First' || i, 'last_name', 'Last' || i, 'company', 'Company ' || i % 1000, 'title', 'Title',
	'emails', jsonb_build_array('person' || i || '@example' || i % 100 || '.com'),
	'phones', jsonb_build_array('+49151' || 20000000 + i),
	'tags', jsonb_build_array('a', 'b'), 'metadata', jsonb_build_object('k', i)) AS payload
FROM generate_series(1, :n) i;
CREATE TABLE batches AS
SELECT jsonb_agg(jsonb_build_object('source_id', 'r' || i, 'version', '2026-01-01T00:00:00Z', 'payload', payload)) AS events
FROM payloads GROUP BY i / 1000;
CREATE TABLE changes AS
SELECT jsonb_agg(jsonb_build_object('source_id', 'r' || i, 'version', '2026-02-01T00:00:00Z', 'payload', payload || '{"title": "Head"}')) AS events
FROM payloads GROUP BY i / 1000;
COPY (SELECT i, payload FROM payloads) TO '/dev/null';
CREATE TABLE plain (i integer, payload jsonb);
CREATE INDEX ON plain (i);
CREATE INDEX ON plain ((payload ->> 'last_name'));
CREATE INDEX ON plain ((payload #>> '{emails,0}'));
CREATE TABLE took (o integer GENERATED ALWAYS AS IDENTITY, what text, seconds numeric);
CHECKPOINT;

CREATE PROCEDURE bench(what text, statement text) LANGUAGE plpgsql AS $$
DECLARE
	began timestamptz := clock_timestamp();
BEGIN
	EXECUTE statement;
	COMMIT;
	INSERT INTO public.took (what, seconds) SELECT $1, extract(epoch FROM clock_timestamp() - began);
	COMMIT;
END
$$;
CALL bench('ingest_batch, new', 'SELECT count(contactsync.ingest_batch(''bench'', events)) FROM public.batches');
CALL bench('process, new', 'SELECT contactsync.process()');
CALL bench('ingest_batch, the same again', 'SELECT count(contactsync.ingest_batch(''bench'', events)) FROM public.batches');
CALL bench('process, the same again', 'SELECT contactsync.process()');
SELECT count(ingest_batch('bench', events)) FROM changes \g /dev/null
CALL bench('process, changes', 'SELECT contactsync.process()');
\copy payloads TO 'payloads.copy'
\set file `pwd`/payloads.copy
SELECT format('COPY public.plain FROM %L', :'file') AS copy \gset
CALL bench('COPY into jsonb with three indexes', :'copy');
SELECT 1 / (count(*) = :n)::integer AS all_there FROM directory WHERE title = 'Head' \gset
\ir plain.sql
CREATE TABLE queue AS SELECT b.o, e.event ->> 'source_id' AS source_id, (e.event ->> 'version')::timestamptz AS version, e.event -> 'payload' AS payload
FROM (SELECT 1 AS o, events FROM batches UNION ALL SELECT 2, events FROM changes) b, jsonb_array_elements(b.events) AS e (event);
CREATE PROCEDURE enqueue(which integer) LANGUAGE sql AS $$
	INSERT INTO plain.inbox (source, source_id, kind, version, payload) SELECT 'bench', source_id, 'snapshot', version, payload
	FROM public.queue WHERE o = which
$$;
-- its plans are kept, so that there must be statistics before
INSERT INTO plain.inbox (source, source_id, kind, version, payload)
SELECT 'bench', 'other' || source_id, 'snapshot', version, replace(payload::text, 'person', 'other')::jsonb - 'phones' FROM queue WHERE o = 1 LIMIT 1000;
SELECT plain.process() \g /dev/null
ANALYZE plain.inbox, plain.records, plain.observations, plain.identities, plain.contact_aliases, plain.contacts, plain.audit_log;
CALL enqueue(1);
CALL bench('plpgsql, new', 'SELECT plain.process()');
CALL enqueue(1);
CALL bench('plpgsql, the same again', 'SELECT plain.process()');
CALL enqueue(2);
CALL bench('plpgsql, changes', 'SELECT plain.process()');
SELECT 1 / (count(*) = :n)::integer AS all_there FROM plain.contacts WHERE contact ->> 'title' = 'Head' \gset
SELECT what, round(seconds, 2) AS seconds, round(:n / seconds) AS "rows/s",
	round((SELECT seconds FROM took WHERE what LIKE 'COPY%') / seconds, 3) AS "of COPY's rate",
	round((SELECT p.seconds FROM took p WHERE p.what = replace(t.what, 'process', 'plpgsql') AND p.what <> t.what) / seconds, 2) AS "of plpgsql's rate"
FROM took t ORDER BY o;
