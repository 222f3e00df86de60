-- Jobs at certain times, by pg_cron where it is there, and else by the worker.
--
-- A job of pg_cron does no more than run_schedule(), which queues a run. It runs as whoever made it, and may
-- be gone at any time with pg_cron itself, so that the worker makes up for what it has not done after a while.

CREATE TABLE contactsync.schedules (
	tenant_id  text COLLATE "C" NOT NULL DEFAULT contactsync.current_tenant(),
	source     text COLLATE "C" NOT NULL,
	job        text NOT NULL CHECK (job IN ('sync', 'full', 'reconcile')),
	cron       text NOT NULL,
	next_at    timestamptz NOT NULL,
	last_run   bigint,
	kept_by    text NOT NULL DEFAULT 'worker' CHECK (kept_by IN ('worker', 'pg_cron')),
	PRIMARY KEY (tenant_id, source, job)
);
CREATE INDEX schedules_next_at_idx ON contactsync.schedules (tenant_id, next_at);
COMMENT ON TABLE contactsync.schedules IS 'Runs that are queued at certain times; kept by schedule() and unschedule().';
COMMENT ON COLUMN contactsync.schedules.cron IS 'Minute, hour, day of the month, month and day of the week, in UTC.';
COMMENT ON COLUMN contactsync.schedules.next_at IS 'When the worker queues the job: a time of cron and up to 30 s more, or where pg_cron should have done it, 5 min more.';
COMMENT ON COLUMN contactsync.schedules.kept_by IS 'Who keeps the time.';
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

-- When the worker takes a job up that is due after a time.
CREATE FUNCTION contactsync._worker_time(cron text, kept_by text, after timestamptz) RETURNS timestamptz
	LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
	SELECT contactsync._cron_next(cron, after) + CASE kept_by WHEN 'pg_cron' THEN interval '5 min' ELSE pg_catalog.random() * interval '30 s' END
$$;

CREATE FUNCTION contactsync._keep_schedule(name text, cron text, job text, kept_by text) RETURNS timestamptz
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	due timestamptz;
	s contactsync.sources;
BEGIN
	PERFORM contactsync._require_active();
	SELECT x.* INTO s FROM contactsync.sources x
	WHERE x.tenant_id = contactsync.current_tenant() AND x.name = _keep_schedule.name AND x.state <> 'dropped' FOR NO KEY UPDATE;
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
	INSERT INTO contactsync.schedules AS k (source, job, cron, next_at, kept_by)
	VALUES (_keep_schedule.name, _keep_schedule.job, _keep_schedule.cron,
		contactsync._worker_time(_keep_schedule.cron, _keep_schedule.kept_by, pg_catalog.clock_timestamp()), _keep_schedule.kept_by)
	ON CONFLICT ON CONSTRAINT schedules_pkey DO UPDATE SET cron = excluded.cron, next_at = excluded.next_at, kept_by = excluded.kept_by
		WHERE (k.cron, k.kept_by) IS DISTINCT FROM (excluded.cron, excluded.kept_by);
	PERFORM contactsync._demand_worker();
	RETURN due;
END
$$;
CREATE FUNCTION contactsync.keep_schedule(name text, cron text, job text, kept_by text) RETURNS timestamptz
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.keep_schedule(text, text, text, text) IS 'A part of schedule(): who keeps the time, worker or pg_cron.';

-- A job's name to pg_cron, which may hold 63 bytes.
CREATE FUNCTION contactsync.schedule_name(source text, job text) RETURNS text
	LANGUAGE sql STABLE PARALLEL RESTRICTED AS $$
	SELECT CASE WHEN pg_catalog.octet_length(n.whole) <= 63 THEN n.whole ELSE 'contactsync ' || pg_catalog.md5(n.whole) END
	FROM (SELECT 'contactsync ' || contactsync.current_tenant() || '/' || source || ' ' || job) n (whole)
$$;
COMMENT ON FUNCTION contactsync.schedule_name(text, text) IS 'What pg_cron calls the job of a source.';

-- With the rights of the caller, as whom pg_cron's job is to run.
CREATE FUNCTION contactsync.schedule(name text, cron text, job text DEFAULT 'reconcile') RETURNS timestamptz
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	result timestamptz;
	why text;
BEGIN
	IF NOT EXISTS (SELECT FROM pg_catalog.pg_extension x WHERE x.extname = 'pg_cron') THEN
		RETURN contactsync.keep_schedule(name, cron, job, 'worker');
	END IF;
	result := contactsync.keep_schedule(name, cron, job, 'pg_cron');
	why := CASE WHEN NOT pg_catalog.has_schema_privilege('cron', 'USAGE') THEN 'you may not use it'
		WHEN NOT (SELECT r.rolcanlogin FROM pg_catalog.pg_roles r WHERE r.rolname = current_user) THEN 'its job could not log in as you'
		WHEN coalesce(pg_catalog.current_setting('cron.timezone', true), 'GMT') NOT IN ('GMT', 'UTC', 'Etc/UTC', 'Etc/GMT') THEN 'it does not keep the time in UTC' END;
	IF why IS NULL THEN
		BEGIN
			EXECUTE 'SELECT cron.schedule($1, $2, $3)' USING contactsync.schedule_name(name, job), cron,
				pg_catalog.format('SET contactsync.tenant = %L; SELECT contactsync.run_schedule(%L, %L)', contactsync.current_tenant(), name, job);
		EXCEPTION WHEN OTHERS THEN
			why := SQLERRM;
		END;
	END IF;
	IF why IS NOT NULL THEN
		RAISE NOTICE 'the worker keeps this schedule, not pg_cron: %', why;
		RETURN contactsync.keep_schedule(name, cron, job, 'worker');
	END IF;
	RETURN result;
END
$$;
COMMENT ON FUNCTION contactsync.schedule(text, text, text) IS
	'Queue a run of a source at the times of a cron expression (UTC): sync, full or reconcile. Returns the first of them. A source has one schedule for each job; the same call again does nothing. Where pg_cron is installed in this database, a job of it keeps the time, as the caller; else the worker does, up to 30 s later so that not all come at once, and it makes up by one run for what was missed. A source that is paused or stopped is passed over. Errors: 42704 no such source, 22023 job or expression, 55000 push-only or dormant.';

CREATE FUNCTION contactsync._drop_schedule(name text, job text) RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	result integer;
BEGIN
	PERFORM contactsync._require_active();
	PERFORM contactsync._require_source(name);
	DELETE FROM contactsync.schedules k WHERE k.tenant_id = contactsync.current_tenant() AND k.source = _drop_schedule.name
		AND (_drop_schedule.job IS NULL OR k.job = _drop_schedule.job);
	GET DIAGNOSTICS result = ROW_COUNT;
	RETURN result;
END
$$;
CREATE FUNCTION contactsync.drop_schedule(name text, job text) RETURNS integer
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.drop_schedule(text, text) IS 'A part of unschedule().';

CREATE FUNCTION contactsync.unschedule(name text, job text DEFAULT NULL) RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	jobs CONSTANT text[] := ARRAY(SELECT contactsync.schedule_name(k.source, k.job) FROM contactsync.schedules k
		WHERE k.tenant_id = contactsync.current_tenant() AND k.source = unschedule.name AND k.job = coalesce(unschedule.job, k.job) AND k.kept_by = 'pg_cron');
	result CONSTANT integer := contactsync.drop_schedule(name, job);
	cron_job text;
BEGIN
	FOREACH cron_job IN ARRAY jobs LOOP
		CONTINUE WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_extension x WHERE x.extname = 'pg_cron');
		BEGIN
			EXECUTE 'SELECT cron.unschedule($1)' USING cron_job;
		EXCEPTION WHEN OTHERS THEN
			RAISE NOTICE 'the job "%" of pg_cron is left, and does nothing', cron_job USING DETAIL = SQLERRM,
				HINT = 'Its owner can remove it by cron.unschedule().';
		END;
	END LOOP;
	RETURN result;
END
$$;
COMMENT ON FUNCTION contactsync.unschedule(text, text) IS
	'End the schedules of a source, or the one of a job; returns how many there were. Errors: 42704 no such source, 55000 dormant copy.';

-- A time of a schedule has come: queue its run; NULL where the source is not to be read now.
CREATE FUNCTION contactsync._run_scheduled(k contactsync.schedules) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	s contactsync.sources;
	run bigint;
BEGIN
	SELECT x.* INTO s FROM contactsync.sources x
	WHERE x.tenant_id = contactsync.current_tenant() AND x.name = k.source AND x.state IN ('active', 'failing') AND x.settings -> 'url' IS NOT NULL;
	IF FOUND THEN
		run := contactsync._queue_run(s, k.job <> 'sync', CASE k.job WHEN 'reconcile' THEN 'reconcile' ELSE 'schedule' END);
	END IF;
	UPDATE contactsync.schedules x SET last_run = coalesce(run, x.last_run),
		next_at = contactsync._worker_time(x.cron, x.kept_by, pg_catalog.clock_timestamp())
	WHERE x.tenant_id = contactsync.current_tenant() AND x.source = k.source AND x.job = k.job;
	RETURN run;
END
$$;

CREATE FUNCTION contactsync._run_schedule(name text, job text) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	k contactsync.schedules;
	result bigint;
BEGIN
	PERFORM contactsync._require_active();
	SELECT x.* INTO k FROM contactsync.schedules x
	WHERE x.tenant_id = contactsync.current_tenant() AND x.source = _run_schedule.name AND x.job = _run_schedule.job FOR NO KEY UPDATE;
	IF FOUND THEN
		result := contactsync._run_scheduled(k);
		PERFORM contactsync._demand_worker();
	END IF;
	RETURN result;
END
$$;
CREATE FUNCTION contactsync.run_schedule(name text, job text) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.run_schedule(text, text) IS
	'What a job of pg_cron does: queue the run of a schedule now, and return its id; NULL where there is no such schedule, or the source is paused or stopped. Errors: 55000 dormant copy.';
GRANT EXECUTE ON FUNCTION contactsync.schedule(text, text, text), contactsync.unschedule(text, text), contactsync.run_schedule(text, text),
	contactsync.keep_schedule(text, text, text, text), contactsync.drop_schedule(text, text), contactsync.schedule_name(text, text) TO contactsync_admin;

-- For the worker: queue what is due. A time that was missed counts once.
CREATE FUNCTION contactsync._queue_scheduled() RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	k contactsync.schedules;
BEGIN
	FOR k IN SELECT x.* FROM contactsync.schedules x
		WHERE x.tenant_id = contactsync.current_tenant() AND x.next_at <= pg_catalog.clock_timestamp() FOR NO KEY UPDATE SKIP LOCKED
	LOOP
		PERFORM contactsync._run_scheduled(k);
	END LOOP;
END
$$;
