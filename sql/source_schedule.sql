-- Jobs of sources at certain times, and what is said of how sources fare.
\set VERBOSITY terse
BEGIN;
SET LOCAL search_path = contactsync, public, pg_catalog;
SET LOCAL TimeZone = 'Asia/Tokyo';
SET LOCAL DateStyle = 'ISO';
CREATE FUNCTION pg_temp.refused(q text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE q;
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
-- ---- cron expressions, in UTC: 2026-11-25 is a Wednesday ----
SELECT c AS cron, (SELECT string_agg(to_char(x AT TIME ZONE 'UTC', 'Dy YYYY-MM-DD HH24:MI'), ', ' ORDER BY x) FROM (
	WITH RECURSIVE n (i, x) AS (
		SELECT 1, _cron_next(c, '2026-11-25 10:29:30+00')
		UNION ALL SELECT i + 1, _cron_next(c, x) FROM n WHERE i < 3 AND x IS NOT NULL)
	SELECT x FROM n) n) AS next
FROM unnest(ARRAY['* * * * *', '0 2 * * *', '30 10 * * *', '29 10 * * *', '*/20 * * * *', '5/25 * * * *', '10-30/10 3 * * *', '0 0 29 2 *', '0 0 31 * *',
	'0 12 * * mon-fri', '0 12 * * 7', '0 12 * * sun', '0 12 1 * fri', '0 12 */10 * fri', '0 0 1 jan,JUL *', '15,45 8,20 25 11 *', '  0   2 * * *  ', '@hourly', '@daily', '@weekly', '@monthly', '@yearly',
	'0 0 30 2 *', '59 23 31 12 *', '0 12 1 * 5-7']) WITH ORDINALITY u (c, i) ORDER BY i;
SELECT _cron_next('0 0 29 2 *', '2096-03-01') AS next_leap_year_but_one;
SELECT c AS cron, pg_temp.refused(format('SELECT contactsync._cron_next(%L, now())', c)) FROM unnest(ARRAY['', '* * * *', '* * * * * *', '60 * * * *', '* 24 * * *', '* * 0 * *', '* * 32 * *', '* * * 13 *',
	'* * * * 8', '5-1 * * * *', '*/0 * * * *', '1, * * * *', ',1 * * * *', 'mon * * * *', '* * * foo *', '-1 * * * *', '1-2-3 * * * *', '5 seconds', '@often', '* * * * fri-mon', '1;2 * * * *']) WITH ORDINALITY u (c, i) ORDER BY i;

-- ---- schedule() ----
CREATE ROLE cs_sched;
SELECT add_tenant('sched', 'cs_sched');
SET LOCAL contactsync.tenant = 'sched';
SELECT add_source('crm', 'rest', '{"url": "https://crm.example/", "poll": false}') > 0 AS ok, add_source('pushed', 'canonical') > 0 AS ok;
SELECT to_char(schedule('crm', '0 2 * * *', job => 'reconcile') AT TIME ZONE 'UTC', 'HH24:MI') AS due;
SELECT schedule('crm', '0 2 * * *') = schedule('crm', '0 2 * * *', 'reconcile') AS same;
SELECT schedule('crm', '@hourly', 'sync') > now() AS ok, schedule('crm', '*/5 * * * *', 'full') > now() AS ok;
SELECT source, job, cron, next_at - _cron_next(cron, now()) BETWEEN interval '0' AND interval '30 s' AS jitter, last_run FROM schedules ORDER BY job;
SELECT q, pg_temp.refused(q) FROM unnest(ARRAY[$$SELECT schedule('nobody', '@daily')$$, $$SELECT schedule('pushed', '@daily')$$, $$SELECT schedule('crm', '@daily', 'backup')$$,
	$$SELECT schedule('crm', '@daily', NULL)$$, $$SELECT schedule('crm', NULL)$$, $$SELECT schedule('crm', '0 0 31 2 *')$$, $$SELECT schedule('crm', 'now')$$, $$SELECT unschedule('nobody')$$]) q;
-- what is due is queued, once, however long ago it was due
UPDATE schedules SET next_at = '2026-01-01';
SELECT _queue_polls();
SELECT kind, cause, state, count(*) FROM runs WHERE source = 'crm' GROUP BY 1, 2, 3 ORDER BY 2;
SELECT count(DISTINCT last_run) AS runs, bool_and(next_at > now()) AS later FROM schedules;
SELECT reconcile('crm') = (SELECT last_run FROM schedules WHERE job = 'reconcile') AS serves;
SELECT _queue_polls();
SELECT count(*) FROM runs WHERE source = 'crm';
-- not while it is paused
SELECT pause_source('crm');
UPDATE schedules SET next_at = '2026-01-01', last_run = NULL;
SELECT _queue_polls();
SELECT count(last_run) AS runs, bool_and(next_at > now()) AS later FROM schedules;
SELECT pg_temp.refused($$SELECT reconcile('crm')$$), pg_temp.refused($$SELECT reconcile('pushed')$$), pg_temp.refused($$SELECT reconcile('none')$$);
SELECT resume_source('crm');
SELECT unschedule('crm', 'full'), unschedule('crm'), unschedule('crm');

-- ---- health ----
SELECT * FROM health() WHERE subject <> 'worker';
SELECT pause_source('crm');
SELECT ingest('pushed', '1', '{"birthday": 7}', now()) > 0 AS ok, process();
SELECT ingest('pushed', '2', '{"first_name": "x"}', now()) > 0 AS ok;
UPDATE inbox SET received_at = '2026-01-01' WHERE failed_at IS NULL;
INSERT INTO sources (name, connector, settings, state, last_error, failures, next_poll_at) VALUES
	('f', 'rest', '{"url": "https://f.example/", "poll": "1 min"}', 'failing', 'no route', 3, '2026-01-01 12:00+00'),
	('s', 'rest', '{"url": "https://s.example/"}', 'stopped', 'status 401', 1, NULL),
	('l', 'rest', '{"url": "https://l.example/", "poll": "1 min"}', 'active', NULL, 0, '2099-01-01');
INSERT INTO runs (id, source, kind, state, stamp, started_at, finished_at, held_deletes) OVERRIDING SYSTEM VALUE
	VALUES (4711, 'l', 'full', 'succeeded', now() - interval '1 day', '2026-01-01 00:00:00', '2026-01-01 00:00:05', 99);
SELECT level, subject, regexp_replace(problem, 'since .*', 'since ...') AS problem, hint FROM health() WHERE subject <> 'worker';
SELECT source, state, lag >= interval '1 day' AS old, "interval", overdue FROM sync_lag ORDER BY 1;
SELECT run, source, kind, state, duration, held_deletes, drifted_records FROM run_history WHERE run = 4711;
-- as others see it
CREATE ROLE cs_sched_app IN ROLE cs_sched, contactsync_app;
SET LOCAL ROLE cs_sched_app;
SELECT count(*) > 3 AS lines FROM contactsync.health();
SELECT count(*) FROM contactsync.sync_lag;
SELECT count(*) > 0 AS runs FROM contactsync.run_history;
SELECT count(*) FROM contactsync.drift;
SELECT pg_temp.refused($$SELECT contactsync.schedule('crm', '@daily')$$);
RESET ROLE;
SET LOCAL contactsync.tenant = 'default';
SELECT count(*) FROM sync_lag WHERE source IN ('f', 's', 'l');
SELECT count(*) FROM health() WHERE subject IN ('f', 's', 'l');
ROLLBACK;
