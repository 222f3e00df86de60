-- The queue of fetches as SQL sees it; the worker itself is tested in test/t/080 and 081.
\set VERBOSITY terse
BEGIN;
SET LOCAL search_path = contactsync, public, pg_catalog;
CREATE ROLE cs_fetch_a; CREATE ROLE cs_fetch_b;
SELECT add_tenant('fetch-a', 'cs_fetch_a'), add_tenant('fetch-b', 'cs_fetch_b');
CREATE ROLE cs_fetch_app IN ROLE cs_fetch_a, contactsync_app;
CREATE ROLE cs_fetch_admin IN ROLE cs_fetch_a, contactsync_admin;
CREATE ROLE cs_fetch_other IN ROLE cs_fetch_b, contactsync_admin;
SET LOCAL contactsync.tenant = 'fetch-a';
CREATE FUNCTION pg_temp.refused(q text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	hint text;
	detail text;
BEGIN
	EXECUTE q;
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT, detail = PG_EXCEPTION_DETAIL;
	RETURN SQLSTATE || ' ' || SQLERRM || coalesce(' -- ' || nullif(detail, ''), '') || coalesce(' / ' || nullif(hint, ''), '');
END $$;
SELECT add_source('crm', 'rest', '{"url": "https://crm.invalid", "poll": false}') > 0 AS crm,
	add_source('pushed', 'canonical') > 0 AS pushed, add_source('dav', 'carddav', '{"url": "https://dav.invalid", "poll": false}') > 0 AS dav;
SELECT add_connector('list', '{"driver": "rest", "list": {"path": "/c", "items": "$.i"}, "item": {"id": "$.id"}}');
SELECT add_source('list', 'list', '{"url": "https://list.invalid", "poll": false}') > 0 AS list;

-- ---- what is refused ----
SELECT pg_temp.refused(q) FROM unnest(ARRAY[
	$$SELECT fetch_records('nobody', '{1}')$$, $$SELECT fetch_records(NULL, '{1}')$$, $$SELECT fetch_records('crm', NULL)$$,
	$$SELECT fetch_records('crm', '{1,NULL}')$$, $$SELECT fetch_records('crm', '{1,""}')$$, $$SELECT fetch_records('crm', ARRAY[repeat('x', 1025)])$$,
	$$SELECT fetch_records('crm', '{1}', -1)$$, $$SELECT fetch_records('crm', '{1}', 10)$$, $$SELECT fetch_records('crm', '{1}', NULL)$$,
	$$SELECT fetch_records('pushed', '{1}')$$, $$SELECT fetch_records('list', '{1}')$$, $$SELECT fetch_records('dav', '{1}')$$,
	$$SELECT replay('letter')$$, $$SELECT replay('event')$$, $$SELECT discard('letter', '{1}')$$, $$SELECT discard('fetch', NULL)$$,
	$$SELECT discard(NULL, '{1}')$$]) q;
-- of the connector
SELECT pg_temp.refused(format($$SELECT add_connector('c', %L)$$, spec || c)) FROM
	(SELECT '{"driver": "rest", "list": {"path": "/c", "items": "$.i"}, "item": {"id": "$.id"}}'::jsonb) s (spec), jsonb_array_elements('[
	{"get": {"path": "/c/{id}"}},
	{"get": {"path": "/{id_path}", "headers": {"A": "b"}, "items": "$.x", "item": {"version": "$.v"}, "gone": {"status": [404], "codes": ["NO"], "path": "$.gone"}}},
	{"get": {"path": "/c", "method": "POST", "body": {"ids": ["{id}"]}}},
	{"get": {}}, {"get": {"path": "/c"}}, {"get": {"path": "/c/{who}"}}, {"get": {"path": "/c/{id}", "page": {"next": "$.n"}}},
	{"get": {"path": "/c/{id}", "gone": {"status": 404}}}, {"get": {"path": "/c/{id}", "gone": {"path": "$["}}},
	{"item": {}, "list": {"path": "/c", "items": "$.i", "item": {"id": "$.id"}}, "get": {"path": "/c/{id}"}}]') c;
SELECT pg_temp.refused($$SELECT add_connector('c', '{"driver": "canonical", "get": {"path": "/{id}"}}')$$);

-- ---- each record once ----
SELECT fetch_records('crm', '{b,a,b}') AS two;
SELECT fetch_records('crm', '{a,c}', 3) AS one;
SELECT fetch_records('crm', '{}') AS none;
-- a request that is more urgent makes the fetch so, one that is less changes nothing
SELECT fetch_records('crm', '{c}', 1), fetch_records('crm', '{c}', 2);
SELECT source, source_id, priority, cause, attempts, lease, again, run_at <= clock_timestamp() AS due FROM fetches ORDER BY source_id;
-- what a worker has in hand is asked for once more
UPDATE fetches SET lease = 1 WHERE source_id = 'a';
SELECT fetch_records('crm', '{a}'), fetch_records('crm', '{a}');
SELECT source_id, again FROM fetches WHERE lease IS NOT NULL;
SELECT queue, waiting FROM queue_depth WHERE queue IN ('fetches', 'dead fetches') ORDER BY 1;

-- ---- dead letters ----
INSERT INTO dead_fetches (source, source_id, id, cause, queued_at, attempts, first_failed_at, first_error_code, first_error, last_failed_at, last_error_code, last_error)
SELECT 'crm', 'dead' || i, 1000 + i, 'request', '2026-01-01', 15, timestamptz '2026-01-02 UTC' + i * interval '1 h', '08006', 'first', timestamptz '2026-01-03 UTC' + i * interval '1 h', '08P01', 'last'
FROM generate_series(1, 5) i;
SELECT ingest('pushed', 'p', '[]', '2026-01-01') > 0 AS ok, process();
SELECT kind, source, source_id, cause, attempts, first_error_code, first_error, last_error_code FROM dead_letters ORDER BY 1, 3;
SELECT replay(ids => '{1001,4711}') AS by_id, replay(failed_after => '2026-01-03 03:00 UTC', failed_before => '2026-01-03 04:00 UTC') AS by_time, replay(source => 'dav') AS of_another;
SELECT source_id, priority, cause, attempts, first_error, last_error FROM fetches WHERE cause = 'replay' ORDER BY 1;
SELECT discard('fetch', '{1002,1001}') AS one, discard('event', (SELECT array_agg(id) FROM dead_letters WHERE kind = 'event')) AS event;
SELECT kind, source_id FROM dead_letters ORDER BY 2;
SELECT replay() AS the_rest;
SELECT count(*) FROM dead_letters;

-- ---- whose they are ----
SET LOCAL ROLE cs_fetch_app;
SELECT fetch_records('crm', '{x}') AS app_may_ask;
SELECT count(*) AS sees_them FROM fetches;
SELECT pg_temp.refused(q) FROM unnest(ARRAY[$$SELECT replay()$$, $$SELECT discard('fetch', '{1}')$$, $$DELETE FROM fetches$$, $$UPDATE fetches SET priority = 0$$,
	$$INSERT INTO fetches (source, source_id) VALUES ('crm', '1')$$, $$SELECT _queue_fetches('crm', '{1}', 0, 'request', NULL)$$]) q;
SET LOCAL ROLE cs_fetch_other;
SELECT pg_temp.refused($$SELECT fetch_records('crm', '{x}')$$);
SET LOCAL contactsync.tenant = 'fetch-b';
SELECT pg_temp.refused($$SELECT fetch_records('crm', '{x}')$$);
SELECT (SELECT count(*) FROM fetches) AS fetches, (SELECT count(*) FROM dead_letters) AS dead, (SELECT count(*) FROM attempts) AS attempts, replay(), discard('fetch', '{1003}');
SELECT add_source('crm', 'rest', '{"url": "https://other.invalid", "poll": false}') > 0 AS same_name, fetch_records('crm', '{a}') AS its_own;
SELECT count(*) FROM fetches;
RESET ROLE;
SELECT count(*) AS of_both, count(DISTINCT tenant_id) AS tenants FROM fetches WHERE tenant_id LIKE 'fetch-%';
SET LOCAL contactsync.tenant = 'fetch-a';

-- ---- a source that ends takes them with it ----
SELECT drop_source('crm');
SELECT count(*) FROM fetches f WHERE f.tenant_id = 'fetch-a';
SELECT pg_temp.refused($$SELECT fetch_records('crm', '{x}')$$);
SELECT add_source('crm', 'rest', '{"url": "https://crm.invalid", "poll": false}') > 0 AS again, fetch_records('crm', '{x}');

-- ---- a key is looked up, and a claim reads what it takes ----
SET LOCAL enable_seqscan = off;
CREATE FUNCTION pg_temp.index_of(q text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	line text;
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || q LOOP
		IF line ~ 'using|Sort' THEN
			RETURN NEXT coalesce(substring(line FROM 'using ([a-z_]+)'), 'Sort');
		END IF;
	END LOOP;
END $$;
SELECT pg_temp.index_of($$SELECT FROM fetches f WHERE f.tenant_id = current_tenant() AND f.source = 'crm' AND f.source_id = 'x'$$);
SELECT pg_temp.index_of($$SELECT FROM fetches f WHERE f.tenant_id = current_tenant() AND f.source = 'crm' AND f.priority >= 0 AND (f.priority, f.run_at) >= (0::smallint, '-infinity') ORDER BY priority, run_at LIMIT 5 FOR UPDATE SKIP LOCKED$$);
ROLLBACK;
