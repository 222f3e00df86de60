-- The later life of a source: alter_source(), drop_source() with what becomes of its claims.
\set VERBOSITY terse
BEGIN;
SET LOCAL search_path = contactsync, public, pg_catalog;
SET LOCAL TimeZone = 'UTC';
CREATE ROLE cs_life;
SELECT add_tenant('life', 'cs_life');
SET LOCAL contactsync.tenant = 'life';
CREATE FUNCTION pg_temp.add(s text) RETURNS boolean LANGUAGE sql AS $$
	SELECT contactsync.add_source(s, 'canonical', jsonb_build_object('class', s || 's')) > 0 $$;
CREATE FUNCTION pg_temp.refused(q text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	hint text;
BEGIN
	EXECUTE q;
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
	RETURN SQLSTATE || ' ' || SQLERRM || coalesce(' / ' || nullif(hint, ''), '');
END $$;
SELECT pg_temp.add('crm'), pg_temp.add('erp'), pg_temp.add('web');
-- Ann is of all three, and web is what links crm and erp; Bob of crm and erp; Cid of web alone
SELECT count(ingest(s, i, p::jsonb, v::timestamptz)) FROM (VALUES
	('crm', '1', '{"first_name": "Ann", "last_name": "Lee", "title": "CTO", "emails": ["ann@a.org"]}', '2026-01-01'),
	('web', '1', '{"first_name": "Ann", "last_name": "Lee", "title": "CEO", "emails": ["ann@a.org", "ann@b.org"]}', '2026-01-03'),
	('erp', '1', '{"first_name": "Ann", "last_name": "Lee", "title": "VP", "emails": ["ann@b.org"]}', '2026-01-02'),
	('web', '2', '{"first_name": "Cid", "last_name": "Poe", "emails": ["cid@a.org"]}', '2026-01-01'),
	('crm', '2', '{"first_name": "Bob", "last_name": "Roe", "emails": ["bob@a.org"]}', '2026-01-01'),
	('erp', '2', '{"first_name": "Bob", "last_name": "Roe", "emails": ["bob@a.org"]}', '2026-01-01')) e (s, i, p, v);
SELECT process();
CREATE TEMP VIEW people AS SELECT first_name, title, jsonb_path_query_array(emails, '$[*].address') AS emails, (SELECT string_agg(x ->> 'source', ' ' ORDER BY x ->> 'source') FROM jsonb_array_elements(sources) x) AS sources FROM contactsync.directory;
SELECT * FROM people ORDER BY 1, 2;
SELECT id AS ann FROM directory WHERE first_name = 'Ann' \gset
SELECT id AS cid FROM directory WHERE first_name = 'Cid' \gset

-- ---- alter_source() ----
SELECT set_policy('title', 'source_priority', '{best}');
SELECT process();
SELECT alter_source('crm', '{"class": "best"}');
SELECT title FROM people WHERE first_name = 'Ann';
SELECT class, settings FROM sources WHERE name = 'crm';
SELECT alter_source('crm', '{"class": "best"}'), alter_source('crm', '{}'), alter_source('crm', NULL);
SELECT settings FROM sources WHERE name = 'crm';
SELECT alter_source('crm', '{"class": null}');
SELECT class, settings FROM sources WHERE name = 'crm';
SELECT title FROM people WHERE first_name = 'Ann';
SELECT q, pg_temp.refused(q) FROM (VALUES
	($$SELECT alter_source('nobody', '{}')$$), ($$SELECT alter_source(NULL, '{}')$$), ($$SELECT alter_source('crm', '[]')$$),
	($$SELECT alter_source('crm', '{"url": "https://x.org"}')$$), ($$SELECT alter_source('crm', '{"duplicates": 1}')$$),
	($$SELECT alter_source('crm', '{}', '{"tokn": "x"}')$$)) v (q);
-- what links records is looked at anew
SELECT alter_source('crm', '{"identity": {"metadata.no": "exclusive"}}'), process();
SELECT count(*) FROM identity_policies WHERE tenant_id = 'life' AND next_record IS NOT NULL;
-- another place: where we left off there means nothing here
SELECT add_source('dav', 'carddav', '{"url": "https://a.example/dav/", "poll": "1 h"}') > 0 AS ok;
UPDATE sources SET cursor = '{"token": "1"}', failures = 3, last_error = 'x', next_poll_at = '2099-01-01' WHERE name = 'dav' AND tenant_id = 'life';
SELECT sync('dav') > 0 AS queued;
SELECT alter_source('dav', '{"poll": "2 min"}');
SELECT cursor, failures, next_poll_at < now() + interval '1 h' AS soon FROM sources WHERE name = 'dav';
SELECT alter_source('dav', '{"url": "https://b.example/dav/"}');
SELECT cursor, failures, last_error, next_poll_at <= clock_timestamp() AS now FROM sources WHERE name = 'dav';
SELECT state, error_code, error FROM runs WHERE source = 'dav';
SELECT alter_source('dav', '{"poll": false}');
SELECT settings, next_poll_at FROM sources WHERE name = 'dav';
SELECT pg_temp.refused($$SELECT alter_source('dav', '{"url": null}')$$);

-- ---- drop_source(): keep ----
SELECT q, pg_temp.refused(q) FROM (VALUES ($$SELECT drop_source('nobody')$$), ($$SELECT drop_source('web', 'burn')$$), ($$SELECT drop_source('web', NULL)$$)) v (q);
SELECT sync('dav') > 0 AS queued;
SELECT drop_source('dav'), drop_source('dav');
SELECT state, error_code, error FROM runs WHERE source = 'dav' ORDER BY id DESC LIMIT 1;
SELECT ingest('web', '3', '{"first_name": "Dan", "last_name": "Fox"}', '2026-01-01') > 0 AS ok;
SELECT drop_source('web');
-- what it had sent before still counts
SELECT process();
SELECT * FROM people ORDER BY 1, 2;
SELECT source, state FROM status ORDER BY 1;
SELECT q, pg_temp.refused(q) FROM (VALUES
	($$SELECT ingest('web', '1', '{"title": "x"}', '2026-02-01')$$), ($$SELECT sync('dav')$$), ($$SELECT alter_source('web', '{}')$$),
	($$SELECT pause_source('web')$$), ($$SELECT resume_source('web')$$),
	($$SELECT add_source('web', 'carddav', '{"url": "https://a.example/"}')$$)) v (q);
-- it comes back as what it was
SELECT pg_temp.add('web'), pg_temp.add('web');
SELECT state FROM status WHERE source = 'web';

-- ---- withdraw ----
SELECT drop_source('web', 'withdraw');
SELECT * FROM people ORDER BY 1, 2;
SELECT current_contact(:'cid') = :'cid' AS cid_is_known, (SELECT live FROM contacts WHERE id = :'cid') AS live;
SELECT source_id, alive FROM records WHERE source = 'web' ORDER BY 1;
SELECT count(*) AS problems FROM verify();
SELECT drop_source('web', 'withdraw');
-- until it shows them again
SELECT pg_temp.add('web');
SELECT ingest('web', '2', '{"first_name": "Cid", "last_name": "Poe", "emails": ["cid@a.org"]}', now() + interval '1 min') > 0 AS ok, process();
SELECT * FROM people WHERE first_name = 'Cid';
SELECT ingest('web', '1', '{"first_name": "Ann", "last_name": "Lee", "title": "CEO", "emails": ["ann@a.org", "ann@b.org"]}', now() + interval '1 min') > 0 AS ok, process();

-- ---- purge ----
SELECT ingest('web', '9', '{"first_name": "Late", "last_name": "Comer"}', '2026-01-01') > 0 AS waits;
SELECT drop_source('web', 'purge');
SELECT * FROM people ORDER BY 1, 2;
SELECT current_contact(:'ann') = id AS ann_leads_to_crm FROM directory WHERE first_name = 'Ann' AND title = 'CTO';
SELECT current_contact(:'cid') IS NULL AS cid_leads_nowhere;
SELECT (SELECT count(*) FROM records WHERE source = 'web') AS records, (SELECT count(*) FROM sources WHERE name = 'web') AS sources,
	(SELECT count(*) FROM inbox WHERE source = 'web') AS inbox, (SELECT count(*) FROM source_items WHERE source = 'web') AS items,
	(SELECT count(*) FROM observations o WHERE NOT EXISTS (SELECT FROM records r WHERE r.id = o.record_id)) AS observations,
	(SELECT count(*) FROM identities i WHERE NOT EXISTS (SELECT FROM records r WHERE r.id = i.record_id)) AS identities,
	(SELECT count(*) FROM contacts c WHERE NOT EXISTS (SELECT FROM records r WHERE r.contact_id = c.id) AND (live OR c.contact <> '{}')) AS contacts;
SELECT operation, contact FROM changes() WHERE id = :'cid';
SELECT operation, cause FROM audit_log WHERE row_key = :'cid' ORDER BY id DESC LIMIT 1;
SELECT pg_temp.refused($$SELECT drop_source('web', 'purge')$$);
SELECT process();
SELECT count(*) AS problems FROM verify();
SELECT count(*) AS differences FROM rebuild();
-- the name is free
SELECT add_source('web', 'carddav', '{"url": "https://a.example/"}') > 0 AS ok;
-- the source of edits is there when it is needed
UPDATE directory SET note = 'x' WHERE first_name = 'Bob';
SELECT drop_source('app', 'withdraw');
SELECT note FROM directory WHERE first_name = 'Bob';
UPDATE directory SET note = 'y' WHERE first_name = 'Bob';
SELECT note FROM directory WHERE first_name = 'Bob';
SELECT drop_source('app', 'purge');
SELECT note FROM directory WHERE first_name = 'Bob';
SELECT count(*) AS problems FROM verify();
-- rights
SET LOCAL ROLE contactsync_app;
SET LOCAL contactsync.tenant = 'default';
SELECT pg_temp.refused($$SELECT contactsync.drop_source('crm')$$);
ROLLBACK;
