-- What an event costs: taken in, applied, the same once more; and what COPY makes
-- of the same payloads in a table of jsonb with three indexes.
SET search_path = public, contactsync;
SET client_min_messages = warning;
CREATE EXTENSION contactsync;
SELECT add_source('bench', 'canonical') \gset
CREATE TABLE payloads AS
SELECT i, jsonb_build_object('first_name', 'First' || i, 'last_name', 'Last' || i, 'company', 'Company ' || i % 1000, 'title', 'Title',
	'emails', jsonb_build_array('person' || i || '@example' || i % 100 || '.com'),
	'phones', jsonb_build_array('+1650253' || lpad((i % 10000)::text, 4, '0')),
	'tags', jsonb_build_array('a', 'b'), 'metadata', jsonb_build_object('k', i)) AS payload
FROM generate_series(1, :n) i;
CREATE TABLE batches AS
SELECT jsonb_agg(jsonb_build_object('source_id', 'r' || i, 'version', '2026-01-01T00:00:00Z', 'payload', payload)) AS events
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
\copy payloads TO 'payloads.copy'
\set file `pwd`/payloads.copy
SELECT format('COPY public.plain FROM %L', :'file') AS copy \gset
CALL bench('COPY into jsonb with three indexes', :'copy');
SELECT 1 / (count(*) = :n)::integer AS all_there FROM directory \gset
SELECT what, round(seconds, 2) AS seconds, round(:n / seconds) AS "rows/s",
	round((SELECT seconds FROM took WHERE what LIKE 'COPY%') / seconds, 3) AS "of COPY's rate"
FROM took ORDER BY o;
