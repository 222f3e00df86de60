-- Jobs at certain times, by the worker.

CREATE TABLE contactsync.schedules (
	tenant_id  text COLLATE "C" NOT NULL DEFAULT contactsync.current_tenant(),
	source     text COLLATE "C" NOT NULL,
	job        text NOT NULL CHECK (job IN ('sync', 'full', 'reconcile')),
	cron       text NOT NULL,
	next_at    timestamptz NOT NULL,
	last_run   bigint,
	PRIMARY KEY (tenant_id, source, job)
);
CREATE INDEX schedules_next_at_idx ON contactsync.schedules (tenant_id, next_at);
COMMENT ON TABLE contactsync.schedules IS 'Runs that are queued at certain times; kept by schedule() and unschedule().';
COMMENT ON COLUMN contactsync.schedules.cron IS 'Minute, hour, day of the month, month and day of the week, in UTC.';
COMMENT ON COLUMN contactsync.schedules.next_at IS 'When the job is due: a time of cron, and up to 30 s more.';
COMMENT ON COLUMN contactsync.schedules.last_run IS 'The run that it queued last.';
ALTER TABLE contactsync.schedules OWNER TO contactsync_owner;
ALTER TABLE contactsync.schedules ENABLE ROW LEVEL SECURITY;
ALTER TABLE contactsync.schedules FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON contactsync.schedules
	USING (tenant_id = contactsync.current_tenant()) WITH CHECK (tenant_id = contactsync.current_tenant());
CREATE POLICY worker ON contactsync.schedules FOR SELECT TO contactsync_worker USING (true);
SELECT pg_catalog.pg_extension_config_dump('contactsync.schedules', '');
GRANT SELECT ON contactsync.schedules TO contactsync_app, contactsync_analyst, contactsync_admin;
GRANT SELECT (tenant_id, next_at) ON contactsync.schedules TO contactsync_worker;
CREATE TRIGGER wake AFTER INSERT OR UPDATE ON contactsync.schedules FOR EACH STATEMENT EXECUTE FUNCTION contactsync._wake();

-- The values that a field of a cron expression stands for; NULL = it is none.
CREATE FUNCTION contactsync._cron_field(field text, low integer, high integer, names text[]) RETURNS integer[]
	LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
	item text;
	part text[];
	bounds integer[];
	result integer[] := '{}';
BEGIN
	IF coalesce(field = '' OR field ~ '^,|,$|,,', true) THEN
		RETURN NULL;
	END IF;
	FOREACH item IN ARRAY pg_catalog.string_to_array(pg_catalog.lower(field), ',') LOOP
		part := pg_catalog.regexp_match(item, '^(?:(\*)|([0-9]{1,2}|[a-z]{3})(?:-([0-9]{1,2}|[a-z]{3}))?)(?:/([0-9]{1,2}))?$');
		IF part IS NULL THEN
			RETURN NULL;
		END IF;
		IF part[1] IS NOT NULL THEN
			bounds := ARRAY[low, high];
		ELSE
			SELECT pg_catalog.array_agg(CASE WHEN u.x ~ '^[0-9]' THEN u.x::integer
				ELSE pg_catalog.array_position(names, u.x) - 1 + low END ORDER BY u.i) INTO bounds
			-- a step without an end goes on to the highest
			FROM pg_catalog.unnest(ARRAY[part[2], coalesce(part[3], CASE WHEN part[4] IS NOT NULL THEN high::text ELSE part[2] END)])
				WITH ORDINALITY AS u (x, i);
		END IF;
		IF NOT coalesce(bounds[1] >= low AND bounds[1] <= bounds[2] AND bounds[2] <= high AND coalesce(part[4]::integer, 1) > 0, false) THEN
			RETURN NULL;
		END IF;
		result := result || ARRAY(SELECT pg_catalog.generate_series(bounds[1], bounds[2], coalesce(part[4]::integer, 1)));
	END LOOP;
	RETURN ARRAY(SELECT DISTINCT v FROM pg_catalog.unnest(result) v ORDER BY v);
END
$$;

-- The first time of a cron expression after another one, in UTC; NULL = there is none in ten years. Where both the day of
-- the month and of the week are restricted, either will do, as everywhere in cron.
CREATE FUNCTION contactsync._cron_next(cron text, after timestamptz) RETURNS timestamptz
	LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
	spelled CONSTANT text := CASE pg_catalog.lower(pg_catalog.btrim(cron)) WHEN '@hourly' THEN '0 * * * *' WHEN '@daily' THEN '0 0 * * *'
		WHEN '@midnight' THEN '0 0 * * *' WHEN '@weekly' THEN '0 0 * * 0' WHEN '@monthly' THEN '0 0 1 * *'
		WHEN '@yearly' THEN '0 0 1 1 *' WHEN '@annually' THEN '0 0 1 1 *' ELSE pg_catalog.btrim(cron) END;
	f CONSTANT text[] := pg_catalog.regexp_split_to_array(spelled, '\s+');
	minutes CONSTANT integer[] := contactsync._cron_field(f[1], 0, 59, '{}');
	hours CONSTANT integer[] := contactsync._cron_field(f[2], 0, 23, '{}');
	days CONSTANT integer[] := contactsync._cron_field(f[3], 1, 31, '{}');
	months CONSTANT integer[] := contactsync._cron_field(f[4], 1, 12, '{jan,feb,mar,apr,may,jun,jul,aug,sep,oct,nov,dec}');
	weekdays integer[] := contactsync._cron_field(f[5], 0, 7, '{sun,mon,tue,wed,thu,fri,sat}');
	start CONSTANT timestamp := pg_catalog.date_trunc('minute', after AT TIME ZONE 'UTC') + interval '1 minute';
	day date;
	result timestamp;
BEGIN
	IF pg_catalog.cardinality(f) <> 5 OR minutes IS NULL OR hours IS NULL OR days IS NULL OR months IS NULL OR weekdays IS NULL THEN
		RAISE EXCEPTION 'invalid cron expression "%"', cron USING ERRCODE = 'invalid_parameter_value',
			HINT = 'It has five fields: minute (0-59), hour (0-23), day of the month (1-31), month (1-12 or jan-dec), day of the week (0-7 or sun-sat), each *, a value, a range a-b, these with a step /n, or a list of such; or it is @hourly, @daily, @weekly, @monthly or @yearly. Times are UTC.';
	END IF;
	IF 7 = ANY (weekdays) THEN
		weekdays := weekdays || 0;
	END IF;
	FOR i IN 0 .. 3660 LOOP
		day := start::date + i;
		CONTINUE WHEN pg_catalog.date_part('month', day)::integer <> ALL (months);
		CONTINUE WHEN NOT CASE WHEN f[3] LIKE '*%' OR f[5] LIKE '*%'
			THEN pg_catalog.date_part('day', day)::integer = ANY (days) AND pg_catalog.date_part('dow', day)::integer = ANY (weekdays)
			ELSE pg_catalog.date_part('day', day)::integer = ANY (days) OR pg_catalog.date_part('dow', day)::integer = ANY (weekdays) END;
		SELECT pg_catalog.min(day + pg_catalog.make_interval(hours => h, mins => m)) INTO result
		FROM pg_catalog.unnest(hours) h, pg_catalog.unnest(minutes) m
		WHERE day + pg_catalog.make_interval(hours => h, mins => m) >= start;
		IF result IS NOT NULL THEN
			RETURN result AT TIME ZONE 'UTC';
		END IF;
	END LOOP;
	RETURN NULL;
END
$$;

CREATE FUNCTION contactsync._schedule(name text, cron text, job text) RETURNS timestamptz
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	due timestamptz;
	s contactsync.sources;
BEGIN
	PERFORM contactsync._require_active();
	SELECT x.* INTO s FROM contactsync.sources x
	WHERE x.tenant_id = contactsync.current_tenant() AND x.name = _schedule.name AND x.state <> 'dropped' FOR NO KEY UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'source "%" does not exist', name USING ERRCODE = 'undefined_object', HINT = 'See contactsync.add_source().';
	ELSIF s.settings -> 'url' IS NULL THEN
		RAISE EXCEPTION 'source "%" cannot be read', name USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'Its connector takes what is pushed by ingest().';
	ELSIF job IS NULL OR job NOT IN ('sync', 'full', 'reconcile') THEN
		RAISE EXCEPTION 'unknown job "%"', coalesce(job, 'NULL') USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Jobs are sync, full (a sync that reads everything) and reconcile.';
	ELSIF cron IS NULL THEN
		RAISE EXCEPTION 'a schedule needs a cron expression' USING ERRCODE = 'null_value_not_allowed', HINT = 'unschedule() ends one.';
	END IF;
	due := contactsync._cron_next(cron, pg_catalog.clock_timestamp());
	IF due IS NULL THEN
		RAISE EXCEPTION 'cron expression "%" never comes true', cron USING ERRCODE = 'invalid_parameter_value',
			HINT = 'See its day of the month and its month.';
	END IF;
	INSERT INTO contactsync.schedules AS k (source, job, cron, next_at)
	VALUES (_schedule.name, _schedule.job, _schedule.cron, due + pg_catalog.random() * interval '30 s')
	ON CONFLICT ON CONSTRAINT schedules_pkey DO UPDATE SET cron = excluded.cron, next_at = excluded.next_at
		WHERE k.cron <> excluded.cron;
	PERFORM contactsync._demand_worker();
	RETURN due;
END
$$;
CREATE FUNCTION contactsync.schedule(name text, cron text, job text DEFAULT 'reconcile') RETURNS timestamptz
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.schedule(text, text, text) IS
	'Queue a run of a source at the times of a cron expression (UTC), each up to 30 s later so that not all come at once: sync, full or reconcile. Returns the first of them. A source has one schedule for each job; the same call again does nothing. The worker keeps the time; what it missed is made up for by one run, and a source that is paused or stopped is passed over. Errors: 42704 no such source, 22023 job or expression, 55000 push-only or dormant.';

CREATE FUNCTION contactsync._unschedule(name text, job text) RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	result integer;
BEGIN
	PERFORM contactsync._require_active();
	PERFORM contactsync._require_source(name);
	DELETE FROM contactsync.schedules k WHERE k.tenant_id = contactsync.current_tenant() AND k.source = _unschedule.name
		AND (_unschedule.job IS NULL OR k.job = _unschedule.job);
	GET DIAGNOSTICS result = ROW_COUNT;
	RETURN result;
END
$$;
CREATE FUNCTION contactsync.unschedule(name text, job text DEFAULT NULL) RETURNS integer
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.unschedule(text, text) IS
	'End the schedules of a source, or the one of a job; returns how many there were. Errors: 42704 no such source, 55000 dormant copy.';
GRANT EXECUTE ON FUNCTION contactsync.schedule(text, text, text), contactsync.unschedule(text, text) TO contactsync_admin;

-- For the worker: queue what is due. A time that was missed counts once.
CREATE FUNCTION contactsync._queue_scheduled() RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	k contactsync.schedules;
	s contactsync.sources;
	run bigint;
BEGIN
	FOR k IN SELECT x.* FROM contactsync.schedules x
		WHERE x.tenant_id = contactsync.current_tenant() AND x.next_at <= pg_catalog.clock_timestamp() FOR NO KEY UPDATE SKIP LOCKED
	LOOP
		run := NULL;
		SELECT x.* INTO s FROM contactsync.sources x
		WHERE x.tenant_id = contactsync.current_tenant() AND x.name = k.source AND x.state IN ('active', 'failing') AND x.settings -> 'url' IS NOT NULL;
		IF FOUND THEN
			run := contactsync._queue_run(s, k.job <> 'sync', CASE k.job WHEN 'reconcile' THEN 'reconcile' ELSE 'schedule' END);
		END IF;
		UPDATE contactsync.schedules x SET last_run = coalesce(run, x.last_run),
			next_at = contactsync._cron_next(x.cron, pg_catalog.clock_timestamp()) + pg_catalog.random() * interval '30 s'
		WHERE x.tenant_id = contactsync.current_tenant() AND x.source = k.source AND x.job = k.job;
	END LOOP;
END
$$;
