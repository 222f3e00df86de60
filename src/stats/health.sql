-- What is wrong, and what to do about it.

CREATE FUNCTION contactsync._worker_status(OUT preloaded boolean, OUT launcher boolean, OUT pid integer, OUT seen_at timestamptz, OUT refused boolean)
	RETURNS record LANGUAGE C VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'worker_status_sql';
CREATE FUNCTION contactsync._oldest_snapshot(OUT pid integer, OUT since timestamptz)
	RETURNS record LANGUAGE C VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'stats_oldest_snapshot_sql';
CREATE FUNCTION contactsync._limited_at(source text) RETURNS timestamptz
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'stats_limited_at_sql';

-- Of workers: none where one is needed, or one that does not get on.
CREATE FUNCTION contactsync._worker_health() RETURNS TABLE (problem text, hint text)
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	w record := contactsync._worker_status();
	running CONSTANT boolean := EXISTS (SELECT FROM pg_catalog.pg_stat_activity a
		WHERE a.datname = pg_catalog.current_database() AND a.application_name = 'contactsync worker');
BEGIN
	IF running AND w.seen_at < pg_catalog.clock_timestamp() - interval '5 min' THEN
		RETURN QUERY SELECT 'the worker (process ' || w.pid || ') has been busy with one thing since ' || w.seen_at,
			'See it in pg_stat_activity: it may wait for a lock, or its disk. pg_terminate_backend() of it is safe: it comes back, and goes on.'::text;
	ELSIF NOT running AND EXISTS (SELECT FROM contactsync.sources s WHERE s.tenant_id = contactsync.current_tenant() AND s.next_poll_at IS NOT NULL) THEN
		RETURN QUERY SELECT 'no worker is running in this database'::text,
			CASE WHEN NOT w.preloaded THEN 'Put contactsync into shared_preload_libraries, and restart the server; until then sync() starts a worker when it is needed.'
				WHEN NOT pg_catalog.current_setting('contactsync.enabled')::boolean THEN 'contactsync.enabled is off: turn it on, and reload.'
				WHEN w.refused OR NOT w.launcher THEN 'The server had no room for it, or its launcher: raise max_worker_processes, which takes a restart.'
				ELSE 'It is started within a minute; if not, see the server''s log.' END;
	END IF;
END
$$;

-- What keeps VACUUM from taking away what is dead, of an age that hurts queues: a session, a prepared transaction, a slot.
CREATE FUNCTION contactsync._horizon_health() RETURNS TABLE (problem text, hint text)
	LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$
	SELECT 'a transaction (process ' || o.pid || ') has kept a snapshot since ' || o.since,
		'VACUUM cannot clean up what it may still see, and queues get slow: end it, or pg_terminate_backend(' || o.pid || ').'
	FROM contactsync._oldest_snapshot() o WHERE o.since < pg_catalog.clock_timestamp() - interval '1 hour'
	UNION ALL
	(SELECT 'a prepared transaction has been open since ' || x.prepared,
		'VACUUM cannot clean up what it may still see: COMMIT PREPARED or ROLLBACK PREPARED it; see pg_prepared_xacts.'
	FROM pg_catalog.pg_prepared_xacts x WHERE x.database = pg_catalog.current_database() AND x.prepared < pg_catalog.clock_timestamp() - interval '1 hour'
	ORDER BY x.prepared LIMIT 1)
	UNION ALL
	SELECT 'replication slot "' || x.slot_name || '" holds rows back that are ' || pg_catalog.age(x.xmin) || ' transactions old',
		'VACUUM cannot clean up what its standby may still see: reconnect that, or pg_drop_replication_slot() it.'
	FROM pg_catalog.pg_replication_slots x WHERE pg_catalog.age(x.xmin) > 1000000
$$;

CREATE FUNCTION contactsync._health() RETURNS TABLE (level text, subject text, problem text, hint text)
	LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$
	WITH found (place, level, subject, problem, hint) AS (
		SELECT 1, 'error', 'database', 'this database is dormant: it is a copy, or was restored',
			'SELECT contactsync.activate() if it is to sync in its original''s place.'
		WHERE NOT contactsync._is_activated()
			AND EXISTS (SELECT FROM contactsync.sources s WHERE s.tenant_id = contactsync.current_tenant())
		UNION ALL
		SELECT 2, 'warning', 'worker', w.problem, w.hint FROM contactsync._worker_health() w
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
		SELECT 4, 'warning', s.name, 'its provider limits requests, last at ' || t.at,
			'Nothing is lost, but it takes longer: poll it less often, lower its setting "rate", or ask the provider for more.'
		FROM contactsync.sources s CROSS JOIN LATERAL contactsync._limited_at(s.name) AS t (at)
		WHERE s.tenant_id = contactsync.current_tenant() AND s.state <> 'dropped' AND t.at > pg_catalog.clock_timestamp() - interval '15 min'
		UNION ALL
		SELECT 4, 'warning', s.name, 'is left alone until ' || s.breaker_until || ', because its requests failed one after the other',
			'Then one request tries it. See the provider''s status page, contactsync.run_history and contactsync.attempts.'
		FROM contactsync.sources s
		WHERE s.tenant_id = contactsync.current_tenant() AND s.state IN ('active', 'failing') AND s.breaker_until > pg_catalog.clock_timestamp()
		UNION ALL
		SELECT 5, 'warning', l.source, 'what was last read of it is ' || pg_catalog.date_trunc('second', l.lag) || ' old',
			'A run may be under way, or wait for a worker: see contactsync.run_history.'
		FROM contactsync.sync_lag l WHERE l.state = 'active' AND l.lag > 3 * l."interval" + interval '10 min'
		UNION ALL
		SELECT 6, 'warning', l.source, 'a poll has been due since ' || l.next_poll_at, 'A worker makes it: see the line of the worker.'
		FROM contactsync.sync_lag l WHERE l.overdue
		UNION ALL
		SELECT 7, 'warning', h.source, 'run ' || h.run || ' holds ' || h.held || ' deletes back',
			'approve_run(' || h.run || ') believes them, reject_run(' || h.run || ') does not.'
		FROM (SELECT r.source, r.id AS run, r.held_deletes AS held FROM contactsync.runs r
			WHERE r.tenant_id = contactsync.current_tenant() AND r.held_deletes > 0) h
		UNION ALL
		SELECT 8, 'warning', s.name, 'events that could not be applied: ' || n.n || CASE n.n WHEN 1000 THEN ' or more' ELSE '' END,
			'Their reasons are in contactsync.inbox.'
		FROM contactsync.sources s CROSS JOIN LATERAL (
			SELECT pg_catalog.count(*) AS n FROM (SELECT FROM contactsync.inbox i
				WHERE i.tenant_id = s.tenant_id AND i.source = s.name AND i.failed_at IS NOT NULL ORDER BY i.id LIMIT 1000) i) n
		WHERE s.tenant_id = contactsync.current_tenant() AND n.n > 0
		UNION ALL
		SELECT 9, 'warning', 'inbox', 'events wait since ' || o.received_at, 'A worker, or process(), applies them; the server''s log says why it could not.'
		FROM (SELECT i.received_at FROM contactsync.inbox i WHERE i.tenant_id = contactsync.current_tenant() AND i.failed_at IS NULL
			ORDER BY i.id LIMIT 1) o
		WHERE o.received_at < pg_catalog.clock_timestamp() - interval '5 min'
		UNION ALL
		(SELECT 10, 'warning', r.source, 'run ' || r.id || ' has been queued since ' || r.requested_at,
			'A worker makes it, one run of a source at a time: see contactsync.run_history, and the line of the worker.'
		FROM contactsync.runs r JOIN contactsync.sources s ON s.tenant_id = r.tenant_id AND s.name = r.source AND s.state IN ('active', 'failing')
		WHERE r.tenant_id = contactsync.current_tenant() AND r.state = 'queued' AND r.requested_at < pg_catalog.clock_timestamp() - interval '10 min'
			AND NOT EXISTS (SELECT FROM contactsync.runs o WHERE o.tenant_id = r.tenant_id AND o.source = r.source AND o.state = 'running')
		ORDER BY r.id LIMIT 1)
		UNION ALL
		SELECT 11, 'warning', 'policy', 'contacts have been waiting to be resolved by policy ' || p.version || ' since ' || p.decided_at,
			'process() goes on with it, and so does the worker, besides its other work.'
		FROM contactsync.policies p WHERE p.tenant_id = contactsync.current_tenant() AND p.next_contact IS NOT NULL
			AND p.decided_at < pg_catalog.clock_timestamp() - interval '15 min'
		UNION ALL
		SELECT 12, 'warning', 'policy', 'records have been waiting to be linked by identity policy ' || p.version || ' since ' || p.decided_at,
			'process() goes on with it, and so does the worker, besides its other work.'
		FROM contactsync.identity_policies p WHERE p.tenant_id = contactsync.current_tenant() AND p.next_record IS NOT NULL
			AND p.decided_at < pg_catalog.clock_timestamp() - interval '15 min'
		UNION ALL
		SELECT 16, 'warning', 'fetches', 'records that were asked for could not be read: ' || n.n || CASE n.n WHEN 1000 THEN ' or more' ELSE '' END,
			'See contactsync.dead_letters; replay() tries again, discard() gives up.'
		FROM (SELECT pg_catalog.count(*) AS n FROM (SELECT FROM contactsync.dead_fetches d
			WHERE d.tenant_id = contactsync.current_tenant() ORDER BY d.source, d.source_id LIMIT 1000) d) n WHERE n.n > 0
		UNION ALL
		SELECT 17, 'warning', o.source, 'a record has been waiting to be read since ' || o.run_at,
			'A worker reads it; its attempts and last error are in contactsync.fetches.'
		FROM (SELECT s.name AS source, f.run_at FROM contactsync.sources s
			CROSS JOIN LATERAL (SELECT x.run_at FROM contactsync.fetches x WHERE x.tenant_id = s.tenant_id AND x.source = s.name
				AND x.priority = 0 ORDER BY x.run_at LIMIT 1) f
			WHERE s.tenant_id = contactsync.current_tenant() AND s.state IN ('active', 'failing')) o
		WHERE o.run_at < pg_catalog.clock_timestamp() - interval '10 min'
		UNION ALL
		SELECT 13, 'warning', 'vacuum', v.problem, v.hint FROM contactsync._horizon_health() v
		UNION ALL
		SELECT 14, 'warning', 'counters', 'nothing is counted, because the library is not preloaded',
			'Put contactsync into shared_preload_libraries, and restart the server.'
		WHERE contactsync._counters_state() = 'absent'
		UNION ALL
		SELECT 15, 'warning', 'counters', 'there are more sources than are counted one by one',
			'Raise contactsync.max_counted_sources, which takes a restart.'
		WHERE contactsync._counters_state() = 'full'),
	-- a standby does nothing: what waits, waits for the primary
	here AS (SELECT x.* FROM found x WHERE NOT pg_catalog.pg_is_in_recovery() OR x.place NOT IN (2, 5, 6, 9, 10, 11, 12, 17))
	SELECT f.level, f.subject, f.problem, f.hint FROM (
		SELECT x.* FROM here x
		UNION ALL
		SELECT 99, 'ok', 'contactsync', 'nothing is wrong', 'There is nothing to be done.' WHERE NOT EXISTS (SELECT FROM here)) f
	ORDER BY f.level = 'error' DESC, f.place, f.subject
$$;
CREATE FUNCTION contactsync.health() RETURNS TABLE (level text, subject text, problem text, hint text)
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.health() IS
	'What is wrong with sources, events, workers and this server, a line each, errors before warnings, with what to do about it; one line of level ok where nothing is. Looks at no large table.';
GRANT EXECUTE ON FUNCTION contactsync.health() TO contactsync_app, contactsync_analyst, contactsync_admin;
