-- What monitoring shows: counters, histograms and the views on them, by tenant and role.
CREATE ROLE cs_mon_a;
CREATE ROLE cs_mon_b;
CREATE ROLE cs_mon_app IN ROLE cs_mon_a, contactsync_app;
CREATE ROLE cs_mon_analyst IN ROLE cs_mon_a, contactsync_analyst;
CREATE ROLE cs_mon_admin IN ROLE cs_mon_a, contactsync_admin;
SET search_path = contactsync, public;
SELECT add_tenant('mon_a', 'cs_mon_a'), add_tenant('mon_b', 'cs_mon_b');

-- shapes
SELECT c.relname, string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum) AS columns
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relnamespace = 'contactsync'::regnamespace
	AND c.relname IN ('counters', 'histograms', 'status', 'run_history', 'sync_lag', 'queue_depth', 'conflict_rate', 'webhook_failures')
GROUP BY 1 ORDER BY 1;
-- of every counter a name, a help, and a name and label but once
SELECT add_source('probe', 'canonical') > 0 AS ok;
SELECT ingest('probe', '1', '{"last_name": "X"}', now()) > 0 AS ok, process();
SELECT name, string_agg(DISTINCT coalesce((SELECT k FROM jsonb_object_keys(labels) k), '-'), ',') AS label, count(*), count(DISTINCT labels), bool_and(help ~ '[.]$') AS help
FROM counters GROUP BY name ORDER BY name;
SELECT name, count(*) AS buckets, max(le), bool_and(help ~ '[.]$') AS help FROM histograms GROUP BY name ORDER BY name;

-- ---- what is counted ----
SET contactsync.tenant = 'mon_a';
CREATE FUNCTION pg_temp.counted() RETURNS TABLE (source text, counter text, value bigint) LANGUAGE sql AS $$
	SELECT source, name || coalesce(':' || (SELECT string_agg(value, ',') FROM jsonb_each_text(labels)), ''), value FROM contactsync.counters
	WHERE value > 0 AND name NOT LIKE 'worker%' ORDER BY 1, 2 $$;
SELECT count(add_source(s, 'canonical')) FROM unnest(ARRAY['crm', 'phone', 'gone']) s;
SELECT set_policy('job', 'source_priority', '{crm}');
SELECT set_policy('note', 'manual_review');
SELECT count(ingest(s, i::text, jsonb_build_object('last_name', 'L' || i, 'first_name', 'F', 'emails', ARRAY['m' || i || '@x.org'],
	'title', s, 'note', s), clock_timestamp() - i * interval '1 s')) FROM generate_series(1, 3) i, unnest(ARRAY['crm', 'phone']) s;
SELECT ingest('crm', 'bad', '{"birthday": 7}', now()) > 0 AS ok;
SELECT process();
SELECT * FROM pg_temp.counted();
-- once more the same, and one out of order
SELECT count(ingest('crm', '1', o.payload, o.version)) FROM observations o JOIN records r ON r.id = o.record_id AND r.source = 'crm' AND r.source_id = '1';
SELECT ingest('crm', '1', '{"last_name": "Old"}', '2020-01-01') > 0 AS ok;
SELECT ingest('phone', '2', NULL, now(), 'delete') > 0 AS ok;
SELECT process();
SELECT count(resolve_conflict(id, 1)) FROM conflicts WHERE state = 'open' AND contact_id = (SELECT contact_id FROM records WHERE source = 'crm' AND source_id = '3');
SELECT * FROM pg_temp.counted();
SELECT source, name, max(count) FROM histograms GROUP BY 1, 2 HAVING max(count) > 0 ORDER BY 1, 2;

-- what is rolled back is not counted, whole or in part; an attempt is
BEGIN;
SELECT ingest('gone', '1', '{"last_name": "Y"}', now()) > 0 AS ok, process();
SAVEPOINT s;
SELECT ingest('gone', '2', '{"last_name": "Y"}', now()) > 0 AS ok, process();
ROLLBACK TO s;
SELECT ingest('gone', '3', '{"last_name": "Y"}', now()) > 0 AS ok, process();
SAVEPOINT s2;
SELECT ingest('gone', '4', '{"last_name": "Y"}', now()) > 0 AS ok, process();
RELEASE s2;
SELECT count(*) FROM pg_temp.counted() WHERE source = 'gone';
COMMIT;
SELECT * FROM pg_temp.counted() WHERE source = 'gone';
BEGIN;
SELECT ingest('gone', '5', '{"last_name": "Y"}', now()) > 0 AS ok, process();
SELECT status FROM receive('none', '{}', '{}');
ROLLBACK;
BEGIN;
SELECT ingest('gone', '6', '{"last_name": "Y"}', now()) > 0 AS ok, process();
PREPARE TRANSACTION 'counted';
COMMIT PREPARED 'counted';
SELECT * FROM pg_temp.counted() WHERE source = 'gone' OR counter LIKE 'webhook%';

-- ---- views ----
SELECT source, state, records, waiting, rejected, held_deletes, last_run, failures, last_success_at, age, last_error_code, open_conflicts FROM status ORDER BY 1;
SELECT source, live FROM source_counts WHERE tenant_id = 'mon_a' ORDER BY 1;
SELECT source, state, as_of, lag, overdue, p50 > '0' AS p50, p50 <= p95 AND p95 <= p99 AS ordered, events FROM sync_lag ORDER BY 1;
SELECT ingest('crm', '9', '{"last_name": "Z"}', now()) > 0 AS ok;
SELECT queue, waiting, age < interval '1 min' AS young FROM queue_depth ORDER BY 1;
SELECT contacts_resolved, disagreements, by_rule, opened, resolved, superseded, rate, open FROM conflict_rate;
SELECT source, reason, requests, last_hour, last_day FROM webhook_failures ORDER BY 1, 2;
SELECT process();

-- as others see it
SET ROLE cs_mon_app;
SELECT count(*) FROM contactsync.counters WHERE source IS NOT NULL;
SELECT count(*) FROM contactsync.histograms;
SELECT (SELECT count(*) FROM contactsync.status), (SELECT count(*) FROM contactsync.sync_lag), (SELECT count(*) FROM contactsync.queue_depth),
	(SELECT count(*) FROM contactsync.conflict_rate), (SELECT count(*) FROM contactsync.run_history);
SELECT count(*) FROM contactsync.webhook_failures; -- not for it
SELECT contactsync.reset_counters(); -- nor that
SET contactsync.tenant = 'mon_b'; -- nor others
SELECT count(*) FROM contactsync.counters;
SELECT count(*) FROM contactsync.status;
SET contactsync.tenant = 'mon_a';
SET ROLE cs_mon_analyst;
SELECT count(*) > 0 AS ok FROM contactsync.counters;
SELECT count(*) > 0 AS ok FROM contactsync.webhook_failures;
RESET ROLE;
SET contactsync.tenant = 'mon_b';
SELECT count(*) FROM counters WHERE name NOT LIKE 'worker%';
SELECT count(*) FROM status;
SELECT contacts_resolved, by_rule, opened, rate, open FROM conflict_rate;
SELECT queue, waiting, oldest FROM queue_depth ORDER BY 1;

-- ---- reset ----
SET contactsync.tenant = 'mon_a';
SET ROLE cs_mon_admin;
SELECT min(since) AS before FROM contactsync.counters WHERE source = 'phone' \gset
SELECT contactsync.reset_counters('phone');
SELECT min(since) > :'before' AS later, sum(value) FROM contactsync.counters WHERE source = 'phone';
SELECT count(*) > 0 AS others_stay FROM pg_temp.counted();
SELECT contactsync.reset_counters();
SELECT count(*) FROM pg_temp.counted();
RESET ROLE;
SET contactsync.tenant = 'default';
SELECT sum(value) > 0 AS other_tenants_stay FROM counters WHERE source = 'probe';

-- ---- what is dropped is forgotten ----
SET contactsync.tenant = 'mon_a';
BEGIN;
SELECT drop_source('gone', 'purge');
SELECT count(*) > 0 AS until_commit FROM counters WHERE source = 'gone';
ROLLBACK;
SELECT count(*) > 0 AS still FROM counters WHERE source = 'gone';
SELECT drop_source('gone', 'purge');
SELECT count(*) FROM counters WHERE source = 'gone';
SELECT count(*) FROM source_counts WHERE source = 'gone';
-- names of any length, told apart
SELECT count(add_source(repeat('ä', 100) || i, 'canonical')) FROM generate_series(1, 2) i;
SELECT count(ingest(repeat('ä', 100) || i, '1', '{"last_name": "A"}', now())) FROM generate_series(1, 2) i;
SELECT process();
SELECT octet_length(source), value FROM counters WHERE source LIKE 'ä%' AND labels = '{"outcome": "applied"}' ORDER BY source COLLATE "C";
SELECT left(source, 3) AS source, events FROM sync_lag WHERE source LIKE 'ä%';
RESET contactsync.tenant;
SELECT drop_source('probe', 'purge');
SELECT drop_tenant('mon_a', purge => true), drop_tenant('mon_b');
SELECT add_tenant('mon_a', 'cs_mon_a');
SET contactsync.tenant = 'mon_a';
SELECT count(*) FROM counters WHERE name NOT LIKE 'worker%';
RESET contactsync.tenant;
SELECT drop_tenant('mon_a', purge => true);

-- ---- quantiles ----
-- as if spread evenly over each bucket: 50 in (1, 2.5] ms, 50 in (2.5, 5] ms
SELECT _quantile(array_fill(0::bigint, ARRAY[24]), 0.5) AS none,
	_quantile(ARRAY[0, 50, 50] || array_fill(0::bigint, ARRAY[21]), 0.5) AS p50,
	_quantile(ARRAY[0, 50, 50] || array_fill(0::bigint, ARRAY[21]), 0.75) AS p75,
	_quantile(ARRAY[0, 50, 50] || array_fill(0::bigint, ARRAY[21]), 1) AS p100,
	_quantile(array_fill(0::bigint, ARRAY[23]) || 5::bigint, 0.5) AS beyond;
DROP ROLE cs_mon_app, cs_mon_analyst, cs_mon_admin, cs_mon_a, cs_mon_b;
