-- What became of jobs: every attempt, and those that were given up.

-- Partitions, a day each, are made at run time, as those of audit_log are; prune() drops the old ones.
CREATE TABLE contactsync.attempts (
	tenant_id  text COLLATE "C" NOT NULL DEFAULT contactsync.current_tenant(),
	at         timestamptz NOT NULL,
	kind       text NOT NULL,
	job        bigint NOT NULL,
	target     text COLLATE "C" NOT NULL,
	attempt    integer NOT NULL,
	outcome    text NOT NULL,
	status     integer,
	latency_ms real,
	error_code text,
	error      text
) PARTITION BY RANGE (at);
COMMENT ON TABLE contactsync.attempts IS 'Every attempt at a job of a queue, and what came of it; kept for contactsync.attempt_retention days.';
COMMENT ON COLUMN contactsync.attempts.at IS 'When its outcome was stored.';
COMMENT ON COLUMN contactsync.attempts.kind IS 'fetch: a read of one record, whose id in fetches is job and whose source is target.';
COMMENT ON COLUMN contactsync.attempts.outcome IS 'done: what the record holds was taken in; gone: the source has no such record; unproven: it may not know any record that is asked for so; retry: failed for now; dead: given up, see dead_letters.';
COMMENT ON COLUMN contactsync.attempts.status IS 'Of HTTP; NULL = there was no answer.';
COMMENT ON COLUMN contactsync.attempts.latency_ms IS 'From the request to its answer.';
ALTER TABLE contactsync.attempts OWNER TO contactsync_owner;
ALTER TABLE contactsync.attempts ENABLE ROW LEVEL SECURITY;
ALTER TABLE contactsync.attempts FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON contactsync.attempts USING (tenant_id = contactsync.current_tenant())
	WITH CHECK (tenant_id = contactsync.current_tenant());
GRANT SELECT ON contactsync.attempts TO contactsync_app, contactsync_analyst, contactsync_admin;

CREATE FUNCTION contactsync._attempts_partition(at timestamptz) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	-- the guard's time zone is UTC
	day timestamptz := pg_catalog.date_trunc('day', at);
	part text := 'attempts_' || pg_catalog.to_char(day, 'YYYYMMDD');
BEGIN
	IF pg_catalog.to_regclass('contactsync.' || part) IS NOT NULL THEN
		RETURN;
	END IF;
	PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('contactsync.attempts', 0));
	IF EXISTS (SELECT FROM pg_catalog.pg_class c
			WHERE c.relnamespace = 'contactsync'::pg_catalog.regnamespace AND c.relname = part) THEN
		RETURN;
	END IF;
	EXECUTE pg_catalog.format('CREATE TABLE contactsync.%I PARTITION OF contactsync.attempts FOR VALUES FROM (%L) TO (%L)',
		part, day, day + interval '1 day');
	EXECUTE pg_catalog.format('CREATE INDEX ON contactsync.%I (job)', part);
	EXECUTE pg_catalog.format('ALTER TABLE contactsync.%I ENABLE ROW LEVEL SECURITY', part);
	EXECUTE pg_catalog.format('ALTER TABLE contactsync.%I FORCE ROW LEVEL SECURITY', part);
	EXECUTE pg_catalog.format('CREATE POLICY tenant ON contactsync.%I USING (tenant_id = contactsync.current_tenant()) '
		'WITH CHECK (tenant_id = contactsync.current_tenant())', part);
END
$$;

-- Drop the days that have had their time; of all tenants.
CREATE FUNCTION contactsync._prune_attempts() RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	days CONSTANT integer := pg_catalog.current_setting('contactsync.attempt_retention');
	part name;
BEGIN
	FOR part IN
		SELECT c.relname FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
		WHERE days > 0 AND i.inhparent = 'contactsync.attempts'::pg_catalog.regclass
			AND pg_catalog.right(c.relname, 8)::date < (pg_catalog.now() - pg_catalog.make_interval(days => days))::date
	LOOP
		EXECUTE pg_catalog.format('DROP TABLE contactsync.%I', part);
	END LOOP;
END
$$;

GRANT SELECT (source_id, kind, error_code, error) ON contactsync.inbox TO contactsync_app, contactsync_analyst;
CREATE VIEW contactsync.dead_letters WITH (security_invoker = true) AS
SELECT 'fetch'::text AS kind, d.id, d.source, d.source_id, d.cause, d.attempts, d.queued_at,
	d.first_failed_at, d.first_error_code, d.first_error, d.last_failed_at, d.last_error_code, d.last_error
FROM contactsync.dead_fetches d WHERE d.tenant_id = contactsync.current_tenant()
UNION ALL
SELECT 'event', i.id, i.source, i.source_id, i.kind, 1, i.received_at,
	i.failed_at, i.error_code, i.error, i.failed_at, i.error_code, i.error
FROM contactsync.inbox i WHERE i.tenant_id = contactsync.current_tenant() AND i.failed_at IS NOT NULL;
COMMENT ON VIEW contactsync.dead_letters IS 'What the active tenant''s queues have given up: fetches, and events that cannot be applied. See replay() and discard().';
COMMENT ON COLUMN contactsync.dead_letters.id IS 'Within its kind.';
COMMENT ON COLUMN contactsync.dead_letters.cause IS 'Of a fetch why it was queued; of an event its kind.';

GRANT SELECT ON contactsync.dead_letters TO contactsync_app, contactsync_analyst, contactsync_admin;

CREATE FUNCTION contactsync._require_kind(kind text) RETURNS void
	LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
	IF kind NOT IN ('fetch', 'event') THEN
		RAISE EXCEPTION 'unknown kind of dead letter "%"', kind USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Kinds are fetch and event: see contactsync.dead_letters.';
	END IF;
END
$$;

CREATE FUNCTION contactsync._replay(kind text, ids bigint[], source text, failed_after timestamptz, failed_before timestamptz) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	result bigint;
BEGIN
	PERFORM contactsync._require_active();
	PERFORM contactsync._require_kind(kind);
	IF kind = 'event' THEN
		RAISE EXCEPTION 'events cannot be replayed' USING ERRCODE = 'feature_not_supported',
			HINT = 'What a source says again comes with the next run: see contactsync.sync(). A record alone is read by fetch_records().';
	END IF;
	WITH dead AS (
		DELETE FROM contactsync.dead_fetches d
		WHERE d.tenant_id = contactsync.current_tenant()
			AND (ids IS NULL OR d.id = ANY (ids)) AND (_replay.source IS NULL OR d.source = _replay.source)
			AND (failed_after IS NULL OR d.last_failed_at >= failed_after) AND (failed_before IS NULL OR d.last_failed_at < failed_before)
		RETURNING d.*),
	queued AS (
		INSERT INTO contactsync.fetches (id, source, source_id, priority, cause, first_failed_at, first_error_code, first_error,
			last_failed_at, last_error_code, last_error)
		SELECT d.id, d.source, d.source_id, 5, 'replay', d.first_failed_at, d.first_error_code, d.first_error,
			d.last_failed_at, d.last_error_code, d.last_error
		FROM dead d ORDER BY d.source, d.source_id
		ON CONFLICT ON CONSTRAINT fetches_pkey DO NOTHING)
	SELECT pg_catalog.count(*) INTO result FROM dead;
	PERFORM contactsync._demand_worker();
	RETURN result;
END
$$;
CREATE FUNCTION contactsync.replay(kind text DEFAULT 'fetch', ids bigint[] DEFAULT NULL, source text DEFAULT NULL,
	failed_after timestamptz DEFAULT NULL, failed_before timestamptz DEFAULT NULL) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.replay(text, bigint[], text, timestamptz, timestamptz) IS
	'Try again what was given up, and return how many: of a kind of dead_letters, those with these ids, of this source, that failed last at or after one time and before another; NULL = all. They wait for live work. Errors: 22023 unknown kind, 0A000 events, 55000 dormant copy.';

CREATE FUNCTION contactsync._discard(kind text, ids bigint[]) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	result bigint;
BEGIN
	PERFORM contactsync._require_active();
	PERFORM contactsync._require_kind(kind);
	IF kind IS NULL OR ids IS NULL THEN
		RAISE EXCEPTION 'kind and ids must not be null' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	IF kind = 'fetch' THEN
		DELETE FROM contactsync.dead_fetches d WHERE d.tenant_id = contactsync.current_tenant() AND d.id = ANY (ids);
	ELSE
		DELETE FROM contactsync.inbox i WHERE i.tenant_id = contactsync.current_tenant() AND i.id = ANY (ids) AND i.failed_at IS NOT NULL;
	END IF;
	GET DIAGNOSTICS result = ROW_COUNT;
	RETURN result;
END
$$;
CREATE FUNCTION contactsync.discard(kind text, ids bigint[]) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.discard(text, bigint[]) IS
	'Forget dead letters of a kind, by their ids, for good; returns how many there were. Errors: 22023 unknown kind, 22004, 55000 dormant copy.';
GRANT EXECUTE ON FUNCTION contactsync.replay(text, bigint[], text, timestamptz, timestamptz), contactsync.discard(text, bigint[]) TO contactsync_admin;
