-- The type contact beside jsonb: size, reading fields, text in and out, and GIN.
--
--   psql -X -q -v rows=100000 -f test/bench/contact_access.sql
--
-- in a database that has the extension, on an otherwise idle machine.  Both
-- sides hold the same contacts, jsonb in its flat form (contact::jsonb); each
-- figure is the best of several runs, both sides in turn; times of accessors
-- are net of count() over the same column.
\if :{?rows}
\else
\set rows 100000
\endif
SET search_path = contactsync, public;
SET client_min_messages = warning;
SET jit = off;
SET max_parallel_workers_per_gather = 0;
SET max_parallel_maintenance_workers = 0;
SET maintenance_work_mem = '512MB';
SET work_mem = '64MB';

CREATE SCHEMA contact_bench;
CREATE FUNCTION contact_bench.person(i integer) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
	SELECT jsonb_build_object(
		'first_name', (ARRAY['Adaeze', 'Bruno', 'Chen', 'Dolores', 'Emre', 'Fatima', 'Greta', 'Hiroshi'])[1 + i % 8],
		'last_name', (ARRAY['Okafor', 'Lindqvist', 'Wu', 'Marchetti', 'Yilmaz', 'Haddad', 'Novak'])[1 + i % 7] || i / 97,
		'company', 'Example Industries ' || i % 5000, 'title', (ARRAY['Chief Technology Officer', 'Buyer', 'Head of Sales', 'Engineer'])[1 + i % 4],
		'emails', jsonb_build_array(
			jsonb_build_object('address', 'first.last' || i || '@example.com', 'type', 'work', 'verified', true, 'primary', true),
			jsonb_build_object('address', 'person' || i || '@mail' || i % 50 || '.example.org', 'type', 'home')),
		'phones', jsonb_build_array(
			jsonb_build_object('number', '+1650' || 2000000 + i, 'type', 'mobile', 'primary', true),
			jsonb_build_object('number', '+4420' || 70000000 + i, 'type', 'work')),
		'addresses', jsonb_build_array(jsonb_build_object('street', i % 900 || ' Main Street', 'city', 'Springfield', 'region', 'IL',
			'postal_code', 60000 + i % 9000 || '', 'country', 'US', 'type', 'work')),
		'tags', jsonb_build_array('customer', 'newsletter', 'region-' || i % 20),
		'metadata', jsonb_build_object('billing_contact', 'yes', 'account_id', 'AC-' || 100000 + i, 'score', i % 100))
$$;

-- the reference contact, with four stamps for its values
CREATE FUNCTION contact_bench.stamped(c contact) RETURNS contact LANGUAGE sql AS $$
	SELECT (c::jsonb || jsonb_build_object('_provenance', (SELECT jsonb_object_agg(cell, jsonb_build_object(
		'source', (ARRAY['hubspot', 'google', 'ann-phone', 'app'])[1 + n % 4],
		'as_of', format('2024-05-0%sT10:00:00.000000Z', 1 + n % 4), 'changed_at', format('2024-03-0%sT09:00:00.000000Z', 1 + n % 4),
		'flags', '[]'::jsonb))
	FROM (SELECT cell, row_number() OVER (ORDER BY cell) AS n FROM (
		SELECT k AS cell FROM jsonb_each(c::jsonb) e (k, v) WHERE jsonb_typeof(v) = 'string'
		UNION ALL SELECT 'emails:' || lower(e ->> 'address') FROM jsonb_array_elements(c -> 'emails') e
		UNION ALL SELECT 'phones:' || (e ->> 'number') FROM jsonb_array_elements(c -> 'phones') e
		UNION ALL SELECT 'tags:' || e FROM jsonb_array_elements_text(c -> 'tags') e
		UNION ALL SELECT 'metadata:' || k FROM jsonb_object_keys(c -> 'metadata') k) cells) numbered)))::contact
$$;
\echo == bytes: the reference contact (2 mails, 2 phones, address, company, title, 3 tags, 3 of metadata)
SELECT pg_column_size(j) AS flat_jsonb, pg_column_size(j::contact) AS contact, pg_column_size(contact_bench.stamped(j::contact)) AS with_4_stamps,
	round(pg_column_size(contact_bench.stamped(j::contact))::numeric / pg_column_size(j), 2) AS ratio_4_stamps,
	pg_column_size(contact_bench.stamped(j::contact)::text::jsonb) AS jsonb_with_provenance
FROM contact_bench.person(4711) j;

CREATE TABLE contact_bench.c AS SELECT i AS id, contact_bench.person(i)::contact AS c FROM generate_series(1, :rows) i;
CREATE TABLE contact_bench.j AS SELECT id, c::jsonb AS j FROM contact_bench.c;
CREATE TABLE contact_bench.t AS SELECT id, j::text AS t FROM contact_bench.j;
VACUUM (ANALYZE, FREEZE) contact_bench.c;
VACUUM (ANALYZE, FREEZE) contact_bench.j;
VACUUM (ANALYZE, FREEZE) contact_bench.t;
SELECT pg_size_pretty(pg_table_size('contact_bench.c')) AS contacts, pg_size_pretty(pg_table_size('contact_bench.j')) AS flat_jsonb;

-- the best of n runs of several queries, in turn, in ms
CREATE FUNCTION contact_bench.best(queries text[], n integer DEFAULT 7) RETURNS float8[] LANGUAGE plpgsql AS $$
DECLARE
	r float8[] := array_fill('infinity'::float8, ARRAY[cardinality(queries)]);
	began timestamptz;
BEGIN
	FOR turn IN 1 .. n LOOP
		FOR q IN 1 .. cardinality(queries) LOOP
			began := clock_timestamp();
			EXECUTE queries[q];
			r[q] := least(r[q], extract(epoch FROM clock_timestamp() - began) * 1000);
		END LOOP;
	END LOOP;
	RETURN r;
END $$;

\echo == accessors: ms over all rows, net of count()
SELECT what, round((r[3] - r[1])::numeric, 1) AS contact, round((r[4] - r[2])::numeric, 1) AS jsonb,
	round(((r[4] - r[2]) / nullif(r[3] - r[1], 0))::numeric, 2) AS times_faster
FROM (VALUES
	(1, 'title', $$sum(length(c ->> 'title'))$$, $$sum(length(j ->> 'title'))$$),
	(2, 'title, count only', $$count(c ->> 'title')$$, $$count(j ->> 'title')$$),
	(3, 'last_name', $$sum(length(c ->> 'last_name'))$$, $$sum(length(j ->> 'last_name'))$$),
	(4, 'has birthday', $$count(*) FILTER (WHERE c ? 'birthday')$$, $$count(*) FILTER (WHERE j ? 'birthday')$$),
	(5, 'primary mail', $$count(contact_primary(c, 'emails'))$$, $$count(coalesce(jsonb_path_query_first(j, '$.emails[*] ? (@.primary == true).address') #>> '{}', j #>> '{emails,0,address}'))$$),
	(6, 'primary mail, if it is the first', $$count(contact_primary(c, 'emails'))$$, $$count(j #>> '{emails,0,address}')$$),
	(7, 'emails as jsonb', $$count(c -> 'emails')$$, $$count(j -> 'emails')$$),
	(8, 'metadata as jsonb', $$count(c -> 'metadata')$$, $$count(j -> 'metadata')$$),
	(9, 'keys', $$sum(cardinality(contact_keys(c)))$$,
		$$sum(cardinality(ARRAY(SELECT 'email:' || lower(e ->> 'address') FROM jsonb_array_elements(j -> 'emails') e UNION ALL SELECT 'tel:' || (e ->> 'number') FROM jsonb_array_elements(j -> 'phones') e)))$$),
	(10, 'keys, of mails as spelled', $$count(contact_keys(c))$$, $$count(jsonb_path_query_array(j, '$.emails[*].address'))$$)
) AS v (n, what, c, j), LATERAL contact_bench.best(ARRAY['SELECT count(c) FROM contact_bench.c', 'SELECT count(j) FROM contact_bench.j',
	'SELECT ' || c || ' FROM contact_bench.c', 'SELECT ' || j || ' FROM contact_bench.j']) r ORDER BY n;

\echo == text in and out: ms over all rows, net of reading the table; every fifth contact has no ASCII in its names, company, title and street
CREATE TABLE contact_bench.u AS SELECT id, CASE WHEN id % 5 = 0 THEN (j || jsonb_build_object('first_name', 'Žofie', 'last_name', 'Kovářová' || id / 97,
	'company', 'Пример Индустрия ' || id % 5000, 'title', '技術担当役員', 'addresses', jsonb_build_array(j #> '{addresses,0}' || '{"street": "Große Straße 7", "city": "Zürich"}')))
	ELSE j END::text AS t FROM contact_bench.j;
SELECT what, round((r[2] - r[1])::numeric) AS contact, round((r[4] - r[3])::numeric) AS jsonb, round(((r[2] - r[1]) / (r[4] - r[3]))::numeric, 2) AS ratio
FROM (VALUES (1, 'in, ASCII', 't', 't', 't', 't', 't::contact', 't::jsonb'), (2, 'in, a fifth not', 'u', 'u', 't', 't', 't::contact', 't::jsonb'),
	(3, 'out', 'c', 'j', 'c', 'j', 'c::text', 'j::text')) AS v (n, what, tab, jtab, col, jcol, expr, jexpr),
	LATERAL contact_bench.best(ARRAY[format('SELECT count(%s) FROM contact_bench.%s', col, tab), format('SELECT count(%s) FROM contact_bench.%s', expr, tab),
		format('SELECT count(%s) FROM contact_bench.%s', jcol, jtab), format('SELECT count(%s) FROM contact_bench.%s', jexpr, jtab)], 5) r ORDER BY n;

\echo == GIN: build (ms, best of 3) and size
CREATE TABLE contact_bench.gin (n integer, what text, tab text, def text, ms float8, bytes bigint);
INSERT INTO contact_bench.gin VALUES
	(1, 'contact_ops', 'c', 'c'), (8, 'contact_key_ops (mails and phones)', 'c', 'c contact_key_ops'),
	(7, 'jsonb_path_ops on mails and phones', 'j', $$((jsonb_path_query_array(j, '$.emails[*].address') || jsonb_path_query_array(j, '$.phones[*].number'))) jsonb_path_ops$$),
	(2, 'contact_keys(c)', 'c', '(contact_keys(c))'),
	(3, 'jsonb_ops on the document', 'j', 'j'), (4, 'jsonb_path_ops on the document', 'j', 'j jsonb_path_ops'),
	(5, 'jsonb_ops on mails', 'j', $$(jsonb_path_query_array(j, '$.emails[*].address'))$$),
	(6, 'jsonb_path_ops on mails', 'j', $$(jsonb_path_query_array(j, '$.emails[*].address')) jsonb_path_ops$$);
DO $$
DECLARE
	g record;
	began timestamptz;
	t float8;
BEGIN
	FOR turn IN 1 .. 3 LOOP
		FOR g IN SELECT * FROM contact_bench.gin ORDER BY n LOOP
			EXECUTE format('DROP INDEX IF EXISTS contact_bench.gin_%s', g.n);
			began := clock_timestamp();
			EXECUTE format('CREATE INDEX gin_%s ON contact_bench.%s USING gin (%s)', g.n, g.tab, g.def);
			t := extract(epoch FROM clock_timestamp() - began) * 1000;
			UPDATE contact_bench.gin SET ms = least(ms, t), bytes = pg_relation_size(format('contact_bench.gin_%s', g.n)::regclass) WHERE n = g.n;
		END LOOP;
	END LOOP;
END $$;
SELECT what, round(ms::numeric) AS build_ms, pg_size_pretty(bytes) AS size FROM contact_bench.gin ORDER BY n;

\echo == GIN: 2000 look-ups by mail, ms
ANALYZE contact_bench.c;
ANALYZE contact_bench.j;
CREATE FUNCTION contact_bench.lookups(query text, keep integer) RETURNS float8 LANGUAGE plpgsql AS $$
DECLARE
	began timestamptz := clock_timestamp();
	n bigint := 0;
	m bigint;
BEGIN
	FOR i IN 1 .. 2000 LOOP
		EXECUTE query INTO m USING i * 37;
		n := n + m;
	END LOOP;
	IF n <> 2000 THEN
		RAISE 'found % of 2000', n;
	END IF;
	RETURN extract(epoch FROM clock_timestamp() - began) * 1000;
END $$;
SET enable_seqscan = off;
SELECT n, what, round(min(ms)::numeric, 1) AS ms FROM generate_series(1, 5) turn, (VALUES
	(1, 'c && contact_ops', $$SELECT count(*) FROM contact_bench.c WHERE c && ARRAY['email:first.last' || $1 || '@example.com']$$),
	(2, 'contact_keys(c) && array_ops', $$SELECT count(*) FROM contact_bench.c WHERE contact_keys(c) && ARRAY['email:first.last' || $1 || '@example.com']$$),
	(3, 'j @> jsonb_ops or jsonb_path_ops', $$SELECT count(*) FROM contact_bench.j WHERE j @> jsonb_build_object('emails', jsonb_build_array(jsonb_build_object('address', 'first.last' || $1 || '@example.com')))$$),
	(4, 'mails ? jsonb_ops', $$SELECT count(*) FROM contact_bench.j WHERE jsonb_path_query_array(j, '$.emails[*].address') ? ('first.last' || $1 || '@example.com')$$),
	(5, 'mails @> jsonb_path_ops', $$SELECT count(*) FROM contact_bench.j WHERE jsonb_path_query_array(j, '$.emails[*].address') @> to_jsonb('first.last' || $1 || '@example.com')$$)
) v (n, what, q), LATERAL contact_bench.lookups(q, turn) ms GROUP BY n, what ORDER BY n;

\if :{?keep}
\else
DROP SCHEMA contact_bench CASCADE;
\endif
