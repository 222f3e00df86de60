-- Runs: one read of a source from its cursor (incremental) or from nothing
-- (full). The worker does the talking; what it heard enters here, a page and
-- the position after it in one transaction.

CREATE INDEX runs_certificate_idx ON contactsync.runs (tenant_id, id) WHERE certified AND NOT certificate_applied;
CREATE INDEX sources_next_poll_at_idx ON contactsync.sources (tenant_id, next_poll_at);
CREATE TABLE contactsync.source_items (
	tenant_id text COLLATE "C" NOT NULL DEFAULT contactsync.current_tenant(),
	source    text COLLATE "C" NOT NULL,
	source_id text COLLATE "C" NOT NULL,
	run       bigint,
	etag      text COLLATE "C",
	part      text COLLATE "C",
	PRIMARY KEY (tenant_id, source, source_id)
) WITH (fillfactor = 70);
COMMENT ON TABLE contactsync.source_items IS 'What is known of the items of a source as the source holds them.';
COMMENT ON COLUMN contactsync.source_items.run IS 'The newest full run that showed it: what a certificate needs to tell who is absent.';
COMMENT ON COLUMN contactsync.source_items.etag IS 'Of what was last fetched, where the source has ETags.';
COMMENT ON COLUMN contactsync.source_items.part IS 'The partition that last showed it, where the source is read in partitions: what another one says of its removal is old.';
ALTER TABLE contactsync.source_items OWNER TO contactsync_owner;
ALTER TABLE contactsync.source_items ENABLE ROW LEVEL SECURITY;
ALTER TABLE contactsync.source_items FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON contactsync.source_items
	USING (tenant_id = contactsync.current_tenant()) WITH CHECK (tenant_id = contactsync.current_tenant());
SELECT pg_catalog.pg_extension_config_dump('contactsync.source_items', '');

-- The worker looks for work across tenants: it sees where there is some, no more.
GRANT SELECT (tenant_id) ON contactsync.tenants TO contactsync_worker;
GRANT SELECT (tenant_id, id, failed_at) ON contactsync.inbox TO contactsync_worker;
GRANT SELECT (tenant_id, id, state, certified, certificate_applied) ON contactsync.runs TO contactsync_worker;
GRANT SELECT (tenant_id, state, next_poll_at) ON contactsync.sources TO contactsync_worker;
GRANT SELECT (tenant_id, next_contact) ON contactsync.policies TO contactsync_worker;
GRANT SELECT (tenant_id, next_record) ON contactsync.identity_policies TO contactsync_worker;
CREATE POLICY worker ON contactsync.inbox FOR SELECT TO contactsync_worker USING (true);
CREATE POLICY worker ON contactsync.runs FOR SELECT TO contactsync_worker USING (true);
CREATE POLICY worker ON contactsync.sources FOR SELECT TO contactsync_worker USING (true);
CREATE POLICY worker ON contactsync.policies FOR SELECT TO contactsync_worker USING (true);
CREATE POLICY worker ON contactsync.identity_policies FOR SELECT TO contactsync_worker USING (true);
CREATE POLICY worker ON contactsync.contacts FOR SELECT TO contactsync_worker USING (true);

-- A commit that brings work wakes the worker.
CREATE FUNCTION contactsync._wake() RETURNS trigger
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'worker_wake_trigger';
CREATE TRIGGER wake AFTER INSERT OR UPDATE OF failed_at ON contactsync.inbox FOR EACH STATEMENT EXECUTE FUNCTION contactsync._wake();
CREATE TRIGGER wake AFTER INSERT ON contactsync.runs FOR EACH STATEMENT EXECUTE FUNCTION contactsync._wake();
CREATE TRIGGER wake AFTER INSERT OR UPDATE ON contactsync.sources FOR EACH STATEMENT EXECUTE FUNCTION contactsync._wake();
CREATE TRIGGER wake AFTER INSERT ON contactsync.identity_policies FOR EACH STATEMENT EXECUTE FUNCTION contactsync._wake();
CREATE TRIGGER wake AFTER INSERT ON contactsync.policies FOR EACH STATEMENT EXECUTE FUNCTION contactsync._wake();
CREATE FUNCTION contactsync._announce() RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'worker_announce_sql';
SELECT contactsync._announce();
CREATE FUNCTION contactsync._demand_worker() RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'worker_demand_sql';

-- Queue a run, unless there is one that serves as well. What nobody watches goes on without an error.
CREATE FUNCTION contactsync._queue_run(s contactsync.sources, "full" boolean, cause text) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	wanted CONSTANT text := CASE WHEN "full" OR s."cursor" IS NULL THEN 'full' ELSE 'incremental' END;
	result bigint;
BEGIN
	SELECT r.id INTO result FROM contactsync.runs r
	WHERE r.tenant_id = contactsync.current_tenant() AND r.source = s.name AND r.state = 'queued' AND r.kind = wanted
		AND (r.cause = 'reconcile' OR _queue_run.cause <> 'reconcile')
	ORDER BY r.id LIMIT 1;
	IF result IS NULL THEN
		INSERT INTO contactsync.runs AS r (source, kind, cause) VALUES (s.name, wanted, _queue_run.cause) RETURNING r.id INTO result;
	END IF;
	RETURN result;
END
$$;

CREATE FUNCTION contactsync._request_run(source text, "full" boolean, cause text) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	s contactsync.sources;
	result bigint;
BEGIN
	PERFORM contactsync._require_active();
	SELECT x.* INTO s FROM contactsync.sources x
	WHERE x.tenant_id = contactsync.current_tenant() AND x.name = _request_run.source;
	IF NOT FOUND OR s.state = 'dropped' THEN
		RAISE EXCEPTION 'source "%" does not exist', source USING ERRCODE = 'undefined_object',
			HINT = 'See contactsync.add_source().';
	ELSIF s.settings -> 'url' IS NULL THEN
		RAISE EXCEPTION 'source "%" cannot be read', source USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'Its connector takes what is pushed by ingest().';
	ELSIF s.state IN ('paused', 'stopped') THEN
		RAISE EXCEPTION 'source "%" is %', source, s.state USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'See contactsync.resume_source().';
	END IF;
	result := contactsync._queue_run(s, "full", cause);
	PERFORM contactsync._demand_worker();
	RETURN result;
END
$$;
CREATE FUNCTION contactsync._sync(source text, "full" boolean) RETURNS bigint
	LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$SELECT contactsync._request_run(source, "full", 'request')$$;
CREATE FUNCTION contactsync.sync(source text, "full" boolean DEFAULT false) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.sync(text, boolean) IS
	'Queue a read of a source and return the run''s id; one that is queued already serves. full: read everything, so that what is absent is known to be deleted. The worker does it: see wait_for_run(). Errors: 42704, 55000 paused, push-only or dormant.';

CREATE FUNCTION contactsync._run_state(run bigint) RETURNS text
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	r record;
	own_full numeric := pg_catalog.pg_current_xact_id_if_assigned()::text::numeric;
	own bigint := own_full % 4294967296;
BEGIN
	SELECT x.state, x.xmin::text::bigint AS xid, x.certified AND NOT x.certificate_applied
		OR EXISTS (SELECT FROM contactsync.inbox i WHERE i.tenant_id = contactsync.current_tenant() AND i.failed_at IS NULL AND i.id <= x.last_inbox_id) AS due
	INTO r FROM contactsync.runs x WHERE x.tenant_id = contactsync.current_tenant() AND x.id = run;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'run % does not exist', run USING ERRCODE = 'undefined_object', HINT = 'See contactsync.runs.';
	-- a row that is seen before its transaction has ended is of our own, or of a savepoint of it, whose id is
	-- not before ours; xmin has but 32 bits of it
	ELSIF r.state = 'queued' AND (r.xid - own + 4294967296) % 4294967296 < 2147483648
		AND pg_catalog.pg_xact_status((own_full + (r.xid - own + 4294967296) % 4294967296)::text::xid8) = 'in progress' THEN
		RAISE EXCEPTION 'run % is not committed yet', run USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'Commit the transaction that called sync(), then wait.';
	END IF;
	RETURN CASE WHEN r.state = 'succeeded' AND r.due THEN 'applying' ELSE r.state END;
END
$$;
CREATE FUNCTION contactsync._wait_for_run(run bigint, timeout interval) RETURNS text
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	until timestamptz := pg_catalog.clock_timestamp() + coalesce(timeout, interval '1 min');
	state text;
BEGIN
	IF pg_catalog.current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
		RAISE EXCEPTION 'this transaction cannot see what others commit' USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'Wait under READ COMMITTED.';
	END IF;
	LOOP
		state := contactsync._run_state(run);
		EXIT WHEN state IN ('succeeded', 'failed') OR pg_catalog.clock_timestamp() >= until;
		PERFORM pg_catalog.pg_sleep(0.02);
	END LOOP;
	RETURN state;
END
$$;
CREATE FUNCTION contactsync.wait_for_run(run bigint, timeout interval DEFAULT '1 min') RETURNS text
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.wait_for_run(bigint, interval) IS
	'Wait until a run has ended and what it brought is applied; returns its state: succeeded or failed, or at the timeout queued, running or applying. Errors: 42704, 55000 in the transaction that queued the run or under REPEATABLE READ.';

-- ---- for the worker, inside the guard ----

-- Was a run cut short by a crash? It goes on, with the stamp it began with.
CREATE FUNCTION contactsync._requeue_runs() RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$
	UPDATE contactsync.runs SET state = 'queued' WHERE tenant_id = contactsync.current_tenant() AND state = 'running'
$$;

-- Is it time for a full read again, because the connector asks for one now and then, or because the last one did
-- not show somebody and one alone proves nothing?
CREATE FUNCTION contactsync._full_is_due(s contactsync.sources) RETURNS boolean
	LANGUAGE sql STABLE PARALLEL RESTRICTED AS $$
	SELECT coalesce((contactsync._connector(s.connector) ->> 'full_every')::interval < pg_catalog.clock_timestamp() - r.stamp, false)
		OR r.missed > 0
	FROM contactsync.runs r
	WHERE r.tenant_id = contactsync.current_tenant() AND r.source = s.name AND r.certified
	ORDER BY r.stamp DESC LIMIT 1
$$;

CREATE FUNCTION contactsync._queue_polls() RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	s contactsync.sources;
BEGIN
	PERFORM contactsync._queue_scheduled();
	FOR s IN SELECT x.* FROM contactsync.sources x
		WHERE x.tenant_id = contactsync.current_tenant() AND x.state IN ('active', 'failing')
			AND x.next_poll_at <= pg_catalog.clock_timestamp() FOR NO KEY UPDATE SKIP LOCKED
	LOOP
		INSERT INTO contactsync.runs (source, kind)
		SELECT s.name, CASE WHEN s."cursor" IS NULL OR contactsync._full_is_due(s) THEN 'full' ELSE 'incremental' END
		WHERE NOT EXISTS (SELECT FROM contactsync.runs r WHERE r.tenant_id = contactsync.current_tenant()
			AND r.source = s.name AND r.state IN ('queued', 'running'));
		UPDATE contactsync.sources x SET next_poll_at = pg_catalog.clock_timestamp() + contactsync._poll_interval(x.settings)
		WHERE x.tenant_id = contactsync.current_tenant() AND x.id = s.id;
	END LOOP;
END
$$;

-- One run at a time of each source.
CREATE FUNCTION contactsync._start_runs(max integer)
	RETURNS TABLE (run bigint, source text, kind text, stamp timestamptz, attempt integer, started_from jsonb, progress jsonb,
		settings jsonb, spec jsonb, failures bigint)
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
	WITH due AS MATERIALIZED (
		SELECT pg_catalog.min(r.id) AS id FROM contactsync.runs r
		JOIN contactsync.sources s ON s.tenant_id = r.tenant_id AND s.name = r.source AND s.state IN ('active', 'failing')
		WHERE r.tenant_id = contactsync.current_tenant() AND r.state = 'queued'
			-- nor one while a certificate is still to be applied: it would take its sightings over
			AND NOT EXISTS (SELECT FROM contactsync.runs o WHERE o.tenant_id = r.tenant_id AND o.source = r.source
				AND (o.state = 'running' OR o.certified AND NOT o.certificate_applied))
		GROUP BY r.source ORDER BY 1 LIMIT max)
	UPDATE contactsync.runs r SET state = 'running', attempt = r.attempt + 1,
		started_at = pg_catalog.clock_timestamp(),
		-- later than any read of the source before it, whatever the clock says
		stamp = coalesce(r.stamp, GREATEST(pg_catalog.clock_timestamp(),
			(SELECT pg_catalog.max(o.stamp + (2 * o.pages + 2) * interval '1 microsecond') FROM contactsync.runs o
			 WHERE o.tenant_id = r.tenant_id AND o.source = r.source))),
		cursor_before = CASE WHEN r.attempt > 0 OR r.kind = 'full' THEN r.cursor_before ELSE s."cursor" END
	FROM contactsync.sources s
	WHERE r.tenant_id = contactsync.current_tenant() AND r.id IN (SELECT d.id FROM due d)
		AND s.tenant_id = r.tenant_id AND s.name = r.source
	RETURNING r.id, r.source, r.kind, r.stamp, r.attempt, r.cursor_before, r.progress, s.settings, contactsync._connector(s.connector), s.failures::bigint;
END
$$;

-- Of a list of items with their ETags, those that have to be fetched, by their place in it: new, changed, or
-- listed though they are known as deleted. The others have been seen.
CREATE FUNCTION contactsync._note_list(run bigint, "full" boolean, ids text[], etags text[]) RETURNS SETOF bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	r contactsync.runs;
BEGIN
	SELECT x.* INTO STRICT r FROM contactsync.runs x WHERE x.tenant_id = contactsync.current_tenant() AND x.id = run;
	IF "full" THEN
		UPDATE contactsync.source_items i SET run = r.id
		FROM ROWS FROM (pg_catalog.unnest(ids), pg_catalog.unnest(etags)) AS u (id, etag)
		WHERE i.tenant_id = contactsync.current_tenant() AND i.source = r.source AND i.source_id = u.id AND i.etag = u.etag;
	END IF;
	RETURN QUERY
	SELECT u.i FROM ROWS FROM (pg_catalog.unnest(ids), pg_catalog.unnest(etags)) WITH ORDINALITY AS u (id, etag, i)
	LEFT JOIN contactsync.source_items i
		ON i.tenant_id = contactsync.current_tenant() AND i.source = r.source AND i.source_id = u.id
	LEFT JOIN contactsync.records c
		ON c.tenant_id = contactsync.current_tenant() AND c.source = r.source AND c.source_id = u.id
	WHERE i.etag IS DISTINCT FROM u.etag OR NOT coalesce(c.alive, true)
	ORDER BY u.i;
END
$$;

-- The provider has lost the cursor: the run goes on as one that reads everything.
CREATE FUNCTION contactsync._restart_run(run bigint) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$
	UPDATE contactsync.runs x SET kind = 'full', cause = 'cursor lost', progress = NULL
	WHERE x.tenant_id = contactsync.current_tenant() AND x.id = run AND x.state = 'running'
$$;

-- A page: its events, who was seen, and where the run stands after it. An item of kind 'gone' is a delete, and one
-- of kind 'merged' a merge, if the source ever showed it. What a partition has no longer is no delete if another one showed it since.
CREATE FUNCTION contactsync._store_page(run bigint, ids text[], kinds text[], versions timestamptz[], created timestamptz[],
	modified timestamptz[], payloads jsonb[], etags text[], faults text[], progress jsonb, part text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	r contactsync.runs;
	n bigint;
	gone bigint;
	last bigint;
BEGIN
	SELECT x.* INTO STRICT r FROM contactsync.runs x
	WHERE x.tenant_id = contactsync.current_tenant() AND x.id = run AND x.state = 'running' FOR UPDATE;
	WITH stored AS (
		INSERT INTO contactsync.inbox AS i (source, source_id, kind, version, seq, created, source_modified, payload, sighted, run,
			failed_at, error_code, error)
		SELECT r.source, u.id, CASE u.kind WHEN 'gone' THEN 'delete' WHEN 'merged' THEN 'merge' ELSE u.kind END, coalesce(u.version, r.stamp),
			CASE WHEN u.version IS NULL THEN (r.attempt::bigint << 48) + (r.pages::bigint << 20) + u.i
				-- what changed at a moment comes before the state as of that moment
				WHEN u.kind = 'patch' THEN -1 ELSE 0 END,
			-- what a later page shows, or one page after it said that it is gone, was seen later: it may have moved
			u.created, u.modified, u.payload, r.stamp + (2 * r.pages + coalesce(t.i < u.i, false)::integer) * interval '1 microsecond', r.id,
			CASE WHEN u.fault IS NOT NULL THEN pg_catalog.clock_timestamp() END,
			CASE WHEN u.fault IS NOT NULL THEN '22P02' END, u.fault
		FROM ROWS FROM (pg_catalog.unnest(ids), pg_catalog.unnest(kinds), pg_catalog.unnest(versions),
			pg_catalog.unnest(_store_page.created), pg_catalog.unnest(modified), pg_catalog.unnest(payloads),
			pg_catalog.unnest(faults)) WITH ORDINALITY
			AS u (id, kind, version, created, modified, payload, fault, i)
		LEFT JOIN (SELECT g.id, pg_catalog.max(g.i) AS i FROM ROWS FROM (pg_catalog.unnest(ids), pg_catalog.unnest(kinds))
			WITH ORDINALITY AS g (id, kind, i) WHERE g.kind IN ('gone', 'delete', 'merged') GROUP BY g.id) t ON t.id = u.id
		WHERE (u.kind NOT IN ('gone', 'merged')
			OR EXISTS (SELECT FROM contactsync.source_items k
				WHERE k.tenant_id = contactsync.current_tenant() AND k.source = r.source AND k.source_id = u.id)
			OR EXISTS (SELECT FROM contactsync.records c
				WHERE c.tenant_id = contactsync.current_tenant() AND c.source = r.source AND c.source_id = u.id AND c.alive))
			AND NOT (_store_page.part IS NOT NULL AND u.kind IN ('gone', 'delete', 'merged') AND EXISTS (SELECT FROM contactsync.source_items k
				WHERE k.tenant_id = contactsync.current_tenant() AND k.source = r.source AND k.source_id = u.id AND k.part <> _store_page.part))
		ORDER BY u.i RETURNING i.id, i.kind, i.failed_at)
	SELECT pg_catalog.max(s.id) FILTER (WHERE s.failed_at IS NULL), pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE s.kind IN ('delete', 'merge'))
	INTO last, n, gone FROM stored s;
	IF r.cause = 'reconcile' THEN
		PERFORM contactsync._note_drift(r, ids, kinds, payloads, faults);
	END IF;
	DELETE FROM contactsync.source_items k USING ROWS FROM (pg_catalog.unnest(ids), pg_catalog.unnest(kinds)) AS u (id, kind)
	WHERE u.kind IN ('gone', 'delete', 'merged') AND k.tenant_id = contactsync.current_tenant() AND k.source = r.source AND k.source_id = u.id
		AND (k.part IS NULL OR k.part = _store_page.part);
	INSERT INTO contactsync.source_items AS i (source, source_id, run, etag, part)
	SELECT r.source, u.id, CASE r.kind WHEN 'full' THEN r.id END, pg_catalog.max(u.etag), _store_page.part
	FROM ROWS FROM (pg_catalog.unnest(ids), pg_catalog.unnest(kinds), pg_catalog.unnest(etags)) AS u (id, kind, etag)
	WHERE u.kind = 'snapshot' AND (r.kind = 'full' OR u.etag IS NOT NULL OR _store_page.part IS NOT NULL) GROUP BY u.id
	ON CONFLICT ON CONSTRAINT source_items_pkey DO UPDATE SET run = coalesce(excluded.run, i.run), etag = excluded.etag, part = excluded.part;
	UPDATE contactsync.runs x SET pages = x.pages + 1, items = x.items + n, progress = _store_page.progress,
		deletes = x.deletes + gone,
		last_inbox_id = GREATEST(last, x.last_inbox_id)
	WHERE x.tenant_id = contactsync.current_tenant() AND x.id = run;
END
$$;

CREATE FUNCTION contactsync._finish_run(run bigint, cursor_after jsonb) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	r contactsync.runs;
BEGIN
	UPDATE contactsync.runs x SET state = 'succeeded', finished_at = pg_catalog.clock_timestamp(),
		cursor_after = _finish_run.cursor_after, certified = x.kind = 'full', progress = NULL, error = NULL, error_code = NULL
	WHERE x.tenant_id = contactsync.current_tenant() AND x.id = run AND x.state = 'running' RETURNING x.* INTO STRICT r;
	UPDATE contactsync.sources s SET "cursor" = _finish_run.cursor_after, failures = 0, last_error = NULL,
		state = CASE s.state WHEN 'failing' THEN 'active' ELSE s.state END
	WHERE s.tenant_id = contactsync.current_tenant() AND s.name = r.source;
END
$$;

-- The cursor stays. A polled source is asked again, later each time; a 401 or 403 waits for a person.
CREATE FUNCTION contactsync._fail_run(run bigint, code text, reason text, retry_after integer) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	r contactsync.runs;
BEGIN
	UPDATE contactsync.runs x SET state = 'failed', finished_at = pg_catalog.clock_timestamp(), progress = NULL,
		error_code = code, error = reason
	WHERE x.tenant_id = contactsync.current_tenant() AND x.id = run AND x.state = 'running' RETURNING x.* INTO r;
	UPDATE contactsync.sources s SET failures = s.failures + 1, last_error = reason,
		state = CASE WHEN s.state = 'paused' THEN 'paused' WHEN code = '28000' THEN 'stopped' ELSE 'failing' END,
		next_poll_at = CASE WHEN s.next_poll_at IS NOT NULL AND code <> '28000' THEN pg_catalog.clock_timestamp() + GREATEST(
			pg_catalog.make_interval(secs => coalesce(retry_after, 0)),
			s.breaker_until - pg_catalog.clock_timestamp(),
			-- full jitter over an hour at most
			pg_catalog.make_interval(secs => 1 + pg_catalog.random() * LEAST(3600, 2 ^ LEAST(s.failures, 12)))) END
	WHERE s.tenant_id = contactsync.current_tenant() AND s.name = r.source;
END
$$;

-- A record is gone if this certificate did not show it, nor the one before it, or as many as the connector asks for:
-- the start of the earliest of them. NULL = there are not as many.
CREATE FUNCTION contactsync._absent_since(r contactsync.runs) RETURNS timestamptz
	LANGUAGE sql STABLE PARALLEL RESTRICTED AS $$
	SELECT x.stamp FROM contactsync.runs x
	WHERE x.tenant_id = contactsync.current_tenant() AND x.source = r.source AND x.certified AND x.stamp <= r.stamp
	ORDER BY x.stamp DESC
	OFFSET coalesce((SELECT (contactsync._connector(s.connector) ->> 'misses')::integer FROM contactsync.sources s
		WHERE s.tenant_id = contactsync.current_tenant() AND s.name = r.source), 2) - 1 LIMIT 1
$$;

-- What a certificate proves: who was seen, and who is gone. Called by process()
-- once all that the run brought is applied; true if there are deletes to apply.
CREATE FUNCTION contactsync._apply_certificates() RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	r contactsync.runs;
	since timestamptz;
	once_deleted bigint[];
	alive bigint;
	unseen bigint;
	gone bigint;
	result boolean := false;
BEGIN
	FOR r IN SELECT x.* FROM contactsync.runs x
		WHERE x.tenant_id = contactsync.current_tenant() AND x.certified AND NOT x.certificate_applied
			AND NOT EXISTS (SELECT FROM contactsync.inbox i WHERE i.tenant_id = x.tenant_id AND i.failed_at IS NULL AND i.id <= x.last_inbox_id)
		ORDER BY x.id FOR UPDATE
	LOOP
		WITH seen AS (
			-- from item to record by its key, whatever statistics say: see store_fix_plans in store_apply.c
			UPDATE contactsync.records c SET seen_at = r.stamp FROM (
				SELECT k.id FROM contactsync.source_items i CROSS JOIN LATERAL (
					SELECT x.id, x.seen_at FROM contactsync.records x
					WHERE x.tenant_id = contactsync.current_tenant() AND x.source = i.source AND x.source_id = i.source_id OFFSET 0) k
				WHERE i.tenant_id = contactsync.current_tenant() AND i.source = r.source AND i.run = r.id
					AND (k.seen_at IS NULL OR k.seen_at < r.stamp) OFFSET 0) s
			WHERE c.tenant_id = contactsync.current_tenant() AND c.id = s.id
			RETURNING c.id, c.deleted_at)
		SELECT pg_catalog.array_agg(s.id) INTO once_deleted FROM seen s WHERE s.deleted_at IS NOT NULL;
		PERFORM contactsync._refold(once_deleted, 'run', r.id);
		IF r.cause = 'reconcile' THEN
			PERFORM contactsync._note_absent(r);
		END IF;
		since := contactsync._absent_since(r);
		SELECT pg_catalog.count(*),
			pg_catalog.count(*) FILTER (WHERE (c.seen_at IS NULL OR c.seen_at < r.stamp) AND c.last_effective < r.stamp AND c.first_known_at < r.stamp),
			pg_catalog.count(*) FILTER (WHERE (c.seen_at IS NULL OR c.seen_at < since) AND c.last_effective < since AND c.first_known_at < since)
		INTO alive, unseen, gone FROM contactsync.records c
		WHERE c.tenant_id = contactsync.current_tenant() AND c.source = r.source AND c.alive;
		IF gone > GREATEST(10, alive / 5) OR (gone > 0 AND NOT EXISTS (SELECT FROM contactsync.source_items i
				WHERE i.tenant_id = contactsync.current_tenant() AND i.source = r.source AND i.run = r.id)) THEN
			UPDATE contactsync.runs x SET held_deletes = gone WHERE x.tenant_id = contactsync.current_tenant() AND x.id = r.id;
		ELSIF gone > 0 THEN
			PERFORM contactsync._delete_absent(r);
			result := true;
		END IF;
		-- what only this one did not show is asked for by itself: a 404 settles it sooner than the next certificate
		IF unseen - gone BETWEEN 1 AND GREATEST(10, alive / 5) THEN
			PERFORM contactsync._probe_absent(r, since);
		END IF;
		UPDATE contactsync.runs x SET certificate_applied = true, missed = unseen - gone WHERE x.tenant_id = contactsync.current_tenant() AND x.id = r.id;
	END LOOP;
	RETURN result;
END
$$;

-- Stamped with the start of the run, so that any later sighting wins.
CREATE FUNCTION contactsync._delete_absent(r contactsync.runs) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$
	INSERT INTO contactsync.inbox (source, source_id, kind, version, inferred, run)
	SELECT c.source, c.source_id, 'delete', r.stamp, true, r.id
	FROM contactsync._absent_since(r) AS since, contactsync.records c
	WHERE c.tenant_id = contactsync.current_tenant() AND c.source = r.source AND c.alive
		AND (c.seen_at IS NULL OR c.seen_at < since) AND c.last_effective < since
		-- one that became known while the run was reading may have missed its page
		AND c.first_known_at < since
$$;

CREATE FUNCTION contactsync._settle_run(run bigint, approve boolean) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	r contactsync.runs;
BEGIN
	PERFORM contactsync._require_active();
	PERFORM contactsync._lock_tenant();
	UPDATE contactsync.runs x SET held_deletes = 0
	WHERE x.tenant_id = contactsync.current_tenant() AND x.id = run AND x.held_deletes > 0 RETURNING x.* INTO r;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'run % holds no deletes', run USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'See held_deletes in contactsync.runs.';
	END IF;
	IF approve THEN
		PERFORM contactsync._delete_absent(r);
	END IF;
END
$$;
CREATE FUNCTION contactsync._approve_run(run bigint) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$SELECT contactsync._settle_run(run, true)$$;
CREATE FUNCTION contactsync._reject_run(run bigint) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$SELECT contactsync._settle_run(run, false)$$;
CREATE FUNCTION contactsync.approve_run(run bigint) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.approve_run(bigint) IS 'Believe the deletes by absence that a run holds back: what it did not show, and nothing showed since, is deleted. Errors: 55000.';
CREATE FUNCTION contactsync.reject_run(run bigint) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.reject_run(bigint) IS 'Drop the deletes by absence that a run holds back. Errors: 55000.';

GRANT EXECUTE ON FUNCTION contactsync.sync(text, boolean), contactsync.wait_for_run(bigint, interval) TO contactsync_app, contactsync_admin;
GRANT EXECUTE ON FUNCTION contactsync.approve_run(bigint), contactsync.reject_run(bigint) TO contactsync_admin;
