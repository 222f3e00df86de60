-- How the reading of sources fares, without a look at large tables.

CREATE INDEX runs_held_idx ON contactsync.runs (tenant_id, source) WHERE held_deletes > 0;
CREATE INDEX inbox_rejected_idx ON contactsync.inbox (tenant_id, source) WHERE failed_at IS NOT NULL;
GRANT SELECT (received_at) ON contactsync.inbox TO contactsync_app, contactsync_analyst;

CREATE VIEW contactsync.run_history WITH (security_invoker = true) AS
SELECT r.id AS run, r.source, r.kind, r.cause, r.state, r.requested_at, r.requested_by, r.started_at, r.finished_at,
	coalesce(r.finished_at, CASE r.state WHEN 'running' THEN pg_catalog.clock_timestamp() END) - r.started_at AS duration,
	r.pages, r.items, r.deletes, r.held_deletes, r.certified, r.attempt AS attempts, r.error_code, r.error,
	(SELECT pg_catalog.count(DISTINCT d.source_id) FROM contactsync.drift d WHERE d.tenant_id = r.tenant_id AND d.run = r.id) AS drifted_records
FROM contactsync.runs r
WHERE r.tenant_id = contactsync.current_tenant();
COMMENT ON VIEW contactsync.run_history IS 'Every run of the active tenant that prune() has left; ORDER BY run DESC for the newest first.';

CREATE VIEW contactsync.sync_lag WITH (security_invoker = true) AS
SELECT s.name AS source, s.state, l.stamp AS as_of, pg_catalog.clock_timestamp() - l.stamp AS lag,
	CASE WHEN s.settings -> 'poll' = 'false' THEN NULL ELSE coalesce(s.settings ->> 'poll', '5 min')::interval END AS "interval", s.next_poll_at,
	coalesce(s.state IN ('active', 'failing') AND s.next_poll_at < pg_catalog.clock_timestamp() - interval '1 min', false) AS overdue
FROM contactsync.sources s
LEFT JOIN LATERAL (SELECT r.stamp FROM contactsync.runs r
	WHERE r.tenant_id = s.tenant_id AND r.source = s.name AND r.state = 'succeeded' ORDER BY r.id DESC LIMIT 1) l ON true
WHERE s.tenant_id = contactsync.current_tenant() AND s.state <> 'dropped' AND s.settings ? 'url';
COMMENT ON VIEW contactsync.sync_lag IS 'Of each source of the active tenant that is read: how old what was last read of it is.';
COMMENT ON COLUMN contactsync.sync_lag.as_of IS 'The start of the newest run that succeeded: what changed before it is here; NULL = it was never read.';
COMMENT ON COLUMN contactsync.sync_lag.overdue IS 'A poll is due for more than a minute, and nobody makes it.';
GRANT SELECT ON contactsync.run_history, contactsync.sync_lag TO contactsync_owner, contactsync_app, contactsync_analyst, contactsync_admin;

CREATE FUNCTION contactsync._health() RETURNS TABLE (level text, subject text, problem text, hint text)
	LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$
	WITH found (place, level, subject, problem, hint) AS (
		SELECT 1, 'error', 'database', 'this database is dormant: it is a copy, or was restored',
			'SELECT contactsync.activate() if it is to sync in its original''s place.'
		WHERE NOT contactsync._is_activated()
			AND EXISTS (SELECT FROM contactsync.sources s WHERE s.tenant_id = contactsync.current_tenant())
		UNION ALL
		SELECT 2, 'warning', 'worker', 'no worker is running in this database',
			'See contactsync.enabled, shared_preload_libraries, max_worker_processes, and the server''s log.'
		WHERE EXISTS (SELECT FROM contactsync.sources s WHERE s.tenant_id = contactsync.current_tenant() AND s.next_poll_at IS NOT NULL)
			AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity a
				WHERE a.datname = pg_catalog.current_database() AND a.application_name = 'contactsync worker')
		UNION ALL
		SELECT 3, CASE s.state WHEN 'stopped' THEN 'error' ELSE 'warning' END, s.name,
			CASE s.state WHEN 'stopped' THEN 'is stopped: the provider refused the credentials'
				WHEN 'paused' THEN 'is paused'
				ELSE 'its last ' || s.failures || ' runs have failed' END || coalesce(': ' || s.last_error, ''),
			CASE s.state WHEN 'stopped' THEN 'Give others by alter_source(name, NULL, secret).'
				WHEN 'paused' THEN 'resume_source() reads it again.'
				ELSE 'It is tried again at ' || coalesce(s.next_poll_at::text, 'the next sync()') || '. See contactsync.run_history.' END
		FROM contactsync.sources s
		WHERE s.tenant_id = contactsync.current_tenant() AND s.state IN ('stopped', 'paused', 'failing')
		UNION ALL
		SELECT 4, 'warning', l.source, 'what was last read of it is ' || pg_catalog.date_trunc('second', l.lag) || ' old',
			'A run may be under way, or wait for a worker: see contactsync.run_history.'
		FROM contactsync.sync_lag l WHERE l.state = 'active' AND l.lag > 3 * l."interval" + interval '10 min'
		UNION ALL
		SELECT 5, 'warning', l.source, 'a poll has been due since ' || l.next_poll_at, 'A worker makes it: see the line of the worker.'
		FROM contactsync.sync_lag l WHERE l.overdue
		UNION ALL
		SELECT 6, 'warning', h.source, 'run ' || h.run || ' holds ' || h.held || ' deletes back',
			'approve_run(' || h.run || ') believes them, reject_run(' || h.run || ') does not.'
		FROM (SELECT r.source, r.id AS run, r.held_deletes AS held FROM contactsync.runs r
			WHERE r.tenant_id = contactsync.current_tenant() AND r.held_deletes > 0) h
		UNION ALL
		SELECT 7, 'warning', s.name, 'events that could not be applied: ' || n.n || CASE n.n WHEN 1000 THEN ' or more' ELSE '' END,
			'Their reasons are in contactsync.inbox.'
		FROM contactsync.sources s CROSS JOIN LATERAL (
			SELECT pg_catalog.count(*) AS n FROM (SELECT FROM contactsync.inbox i
				WHERE i.tenant_id = s.tenant_id AND i.source = s.name AND i.failed_at IS NOT NULL LIMIT 1000) i) n
		WHERE s.tenant_id = contactsync.current_tenant() AND n.n > 0
		UNION ALL
		SELECT 8, 'warning', 'inbox', 'events wait since ' || o.received_at, 'A worker, or process(), applies them; the server''s log says why it could not.'
		FROM (SELECT i.received_at FROM contactsync.inbox i WHERE i.tenant_id = contactsync.current_tenant() AND i.failed_at IS NULL
			ORDER BY i.id LIMIT 1) o
		WHERE o.received_at < pg_catalog.clock_timestamp() - interval '5 min')
	SELECT f.level, f.subject, f.problem, f.hint FROM (
		SELECT x.* FROM found x
		UNION ALL
		SELECT 9, 'ok', 'contactsync', 'nothing is wrong', 'There is nothing to be done.' WHERE NOT EXISTS (SELECT FROM found)) f
	ORDER BY f.level = 'error' DESC, f.place, f.subject
$$;
CREATE FUNCTION contactsync.health() RETURNS TABLE (level text, subject text, problem text, hint text)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.health() IS
	'What is wrong with the reading of sources and the applying of events, a line each, errors before warnings, with what to do about it; one line of level ok where nothing is. Looks at no large table.';
GRANT EXECUTE ON FUNCTION contactsync.health() TO contactsync_app, contactsync_analyst, contactsync_admin;
