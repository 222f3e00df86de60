-- Taking events in, and applying them.

CREATE FUNCTION contactsync._holds_data() RETURNS boolean
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'store_holds_data_sql';

-- The worker asks this one: it must not claim a database that a restore is about to fill.
CREATE FUNCTION contactsync._is_activated() RETURNS boolean
	LANGUAGE sql STABLE PARALLEL RESTRICTED AS $$
	SELECT EXISTS (SELECT FROM contactsync.activation a, pg_catalog.pg_control_system() c, pg_catalog.pg_database d
		WHERE d.datname = pg_catalog.current_database()
			AND a.system_identifier = c.system_identifier AND a.database_oid = d.oid)
$$;
CREATE FUNCTION contactsync._is_active() RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
BEGIN
	IF contactsync._is_activated() THEN
		RETURN true;
	END IF;
	-- a database that holds nothing of anybody's cannot be a copy
	IF NOT contactsync._holds_data() THEN
		PERFORM contactsync._activate();
		RETURN true;
	END IF;
	RETURN false;
END
$$;

CREATE FUNCTION contactsync._activate() RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$
	INSERT INTO contactsync.activation (system_identifier, database_oid)
	SELECT c.system_identifier, d.oid
	FROM pg_catalog.pg_control_system() c, pg_catalog.pg_database d
	WHERE d.datname = pg_catalog.current_database()
	ON CONFLICT DO NOTHING
$$;
CREATE FUNCTION contactsync.activate() RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.activate() IS
	'Let this database sync: needed once after a restore or copy, so that a copy does not act in its original''s place unasked.';
GRANT EXECUTE ON FUNCTION contactsync.activate() TO contactsync_admin;

CREATE FUNCTION contactsync._audit_partition(at timestamptz) RETURNS text
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	-- the guard's time zone is UTC
	month timestamptz := pg_catalog.date_trunc('month', at);
	part text := 'audit_log_' || pg_catalog.to_char(month, 'YYYYMM');
BEGIN
	IF pg_catalog.to_regclass('contactsync.' || part) IS NOT NULL THEN
		RETURN part;
	END IF;
	PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('contactsync.audit_log', 0));
	-- whom we waited for may have made it: to_regclass() would remember that it was not there
	IF EXISTS (SELECT FROM pg_catalog.pg_class c
			WHERE c.relnamespace = 'contactsync'::pg_catalog.regnamespace AND c.relname = part) THEN
		RETURN part;
	END IF;
	EXECUTE pg_catalog.format('CREATE TABLE contactsync.%I PARTITION OF contactsync.audit_log FOR VALUES FROM (%L) TO (%L)',
		part, month, month + interval '1 month');
	EXECUTE pg_catalog.format('ALTER TABLE contactsync.%I ADD PRIMARY KEY (tenant_id, at, id)', part);
	EXECUTE pg_catalog.format('CREATE INDEX ON contactsync.%I (tenant_id, row_key, at)', part);
	EXECUTE pg_catalog.format('ALTER TABLE contactsync.%I ENABLE ROW LEVEL SECURITY', part);
	EXECUTE pg_catalog.format('ALTER TABLE contactsync.%I FORCE ROW LEVEL SECURITY', part);
	EXECUTE pg_catalog.format('CREATE POLICY tenant ON contactsync.%I USING (tenant_id = contactsync.current_tenant()) '
		'WITH CHECK (tenant_id = contactsync.current_tenant())', part);
	RETURN part;
END
$$;

-- ---- events ----

-- Fields that a coverage names, in the form that observations have; NULL names one that does not exist.
CREATE FUNCTION contactsync._coverage(coverage text[]) RETURNS text[]
	LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	SELECT pg_catalog.array_agg(CASE WHEN pg_catalog.split_part(c, ':', 1) = ANY (ARRAY[
			'first_name', 'middle_name', 'last_name', 'prefix', 'suffix', 'nickname', 'company', 'department', 'title',
			'birthday', 'note', 'photo', 'emails', 'phones', 'addresses', 'urls', 'tags', 'metadata']) THEN c END)
	FROM (SELECT pg_catalog.regexp_replace(u, '^metadata[.]', 'metadata:') FROM pg_catalog.unnest(coverage) u) AS x (c)
$$;

-- Why an event's arguments are refused: '' = they are not, else what is wrong; see _refuse_event.
CREATE FUNCTION contactsync._event_fault(source_id text, version timestamptz, kind text, seq bigint, coverage text[],
	created timestamptz) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	SELECT CASE
		WHEN source_id IS NULL OR source_id = '' OR version IS NULL OR kind IS NULL OR seq IS NULL THEN 'null'
		WHEN kind NOT IN ('snapshot', 'patch', 'delete', 'undelete', 'merge') THEN 'kind'
		WHEN NOT pg_catalog.isfinite(version) OR NOT coalesce(pg_catalog.isfinite(created), true) THEN 'time'
		WHEN coverage IS NULL THEN ''
		WHEN kind = 'patch' THEN 'patch'
		WHEN pg_catalog.array_position(contactsync._coverage(coverage), NULL) IS NOT NULL
			THEN 'coverage:' || coalesce(coverage[pg_catalog.array_position(contactsync._coverage(coverage), NULL)], 'null')
		ELSE '' END
$$;

CREATE FUNCTION contactsync._refuse_event(fault text, kind text) RETURNS void
	LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
	CASE pg_catalog.split_part(fault, ':', 1)
		WHEN 'null' THEN
			RAISE EXCEPTION 'source_id, version, kind and seq must not be null' USING ERRCODE = 'null_value_not_allowed';
		WHEN 'kind' THEN
			RAISE EXCEPTION 'unknown kind of event "%"', kind USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Kinds are snapshot, patch, delete, undelete and merge.';
		WHEN 'time' THEN
			RAISE EXCEPTION 'version and created must be finite' USING ERRCODE = 'invalid_parameter_value';
		WHEN 'patch' THEN
			RAISE EXCEPTION 'a patch covers what it lists' USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Leave coverage out, or send a snapshot.';
		WHEN 'coverage' THEN
			RAISE EXCEPTION 'unknown field "%" in coverage', pg_catalog.substr(fault, 10) USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Fields are those of a contact, and metadata.<key>.';
		WHEN 'size' THEN
			RAISE EXCEPTION 'payload is too large' USING ERRCODE = 'program_limit_exceeded',
				HINT = 'See the setting contactsync.max_payload.';
		WHEN '' THEN
			RETURN;
	END CASE;
END
$$;

-- Since when fields have their values, by field in the form that observations have; NULL if nothing is said of it.
CREATE FUNCTION contactsync._changed(changed jsonb) RETURNS jsonb
	LANGUAGE plpgsql STABLE PARALLEL UNSAFE AS $$
DECLARE
	given record;
	name text;
	at timestamptz;
	result jsonb := '{}';
BEGIN
	IF changed IS NULL THEN
		RETURN NULL;
	END IF;
	IF pg_catalog.jsonb_typeof(changed) <> 'object' THEN
		RAISE EXCEPTION 'changed must be a JSON object' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Its members are times by field, or metadata.<key>: {"title": "2026-01-31T12:00:00Z"}.';
	END IF;
	FOR given IN SELECT e.key, e.value FROM pg_catalog.jsonb_each(changed) e LOOP
		name := (contactsync._coverage(ARRAY[given.key]))[1];
		IF name IS NULL THEN
			RAISE EXCEPTION 'unknown field "%" in changed', given.key USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Fields are those of a contact, and metadata.<key>.';
		END IF;
		at := NULL;
		BEGIN
			IF pg_catalog.jsonb_typeof(given.value) = 'string' THEN
				at := (given.value #>> '{}')::timestamptz;
			END IF;
		EXCEPTION WHEN data_exception THEN
			NULL;
		END;
		IF at IS NULL OR NOT pg_catalog.isfinite(at) THEN
			RAISE EXCEPTION 'the time of "%" in changed is not a finite time', given.key USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Give it as text that timestamptz reads.';
		END IF;
		result := result || pg_catalog.jsonb_build_object(name, at);
	END LOOP;
	RETURN NULLIF(result, '{}');
END
$$;

CREATE FUNCTION contactsync._require_source(source text) RETURNS void
	LANGUAGE plpgsql STABLE PARALLEL UNSAFE AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM contactsync.sources s
				   WHERE s.tenant_id = contactsync.current_tenant() AND s.name = _require_source.source AND s.state <> 'dropped') THEN
		RAISE EXCEPTION 'source "%" does not exist', source USING ERRCODE = 'undefined_object',
			HINT = 'See contactsync.add_source().';
	END IF;
END
$$;

CREATE FUNCTION contactsync._ingest(source text, source_id text, payload jsonb, version timestamptz, kind text,
	seq bigint, idempotency_key text, coverage text[], created timestamptz, changed jsonb DEFAULT NULL) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	since jsonb;
	result bigint;
BEGIN
	PERFORM contactsync._require_active();
	PERFORM contactsync._require_source(source);
	PERFORM contactsync._refuse_event(contactsync._event_fault(source_id, version, kind, seq, coverage, created), kind);
	IF changed IS NOT NULL THEN
		since := contactsync._changed(changed);
	END IF;
	IF pg_catalog.pg_column_size(payload) > pg_catalog.pg_size_bytes(pg_catalog.current_setting('contactsync.max_payload')) THEN
		PERFORM contactsync._refuse_event('size', kind);
	END IF;
	IF idempotency_key IS NOT NULL THEN
		result := pg_catalog.nextval('contactsync.inbox_id_seq');
		INSERT INTO contactsync.inbox_dedup AS d (source, key, inbox_id)
		VALUES (_ingest.source, idempotency_key, result)
		ON CONFLICT ON CONSTRAINT inbox_dedup_pkey DO NOTHING;
		IF NOT FOUND THEN
			SELECT d.inbox_id INTO STRICT result FROM contactsync.inbox_dedup d
			WHERE d.tenant_id = contactsync.current_tenant() AND d.source = _ingest.source AND d.key = idempotency_key;
			RETURN result;
		END IF;
	END IF;
	INSERT INTO contactsync.inbox AS i (id, source, source_id, kind, version, seq, created, coverage, payload, idempotency_key, changed)
	VALUES (coalesce(result, pg_catalog.nextval('contactsync.inbox_id_seq')), _ingest.source, _ingest.source_id, _ingest.kind,
		_ingest.version, _ingest.seq, _ingest.created, contactsync._coverage(_ingest.coverage), _ingest.payload, _ingest.idempotency_key, since)
	RETURNING i.id INTO result;
	RETURN result;
END
$$;
CREATE FUNCTION contactsync.ingest(source text, source_id text, payload jsonb, version timestamptz, kind text DEFAULT 'snapshot',
	seq bigint DEFAULT 0, idempotency_key text DEFAULT NULL, coverage text[] DEFAULT NULL, created timestamptz DEFAULT NULL,
	changed jsonb DEFAULT NULL) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.ingest(text, text, jsonb, timestamptz, text, bigint, text, text[], timestamptz, jsonb) IS
	'Queue what a source says of one of its records at one version, and return the inbox id; kind merge, with the payload {"into": "<id>"}, says that it was merged into another of its records and is gone; with an idempotency key used before, the former id and nothing else. changed: since when fields have their values, {"<field>": "<time>"}, where the source keeps that. A payload that cannot be applied stays in inbox with its reason. Errors: 42704 unknown source, 22023, 22004, 54000, 55000 dormant copy.';

-- An idempotency key makes an event one of its own; without, a batch is one statement.
CREATE FUNCTION contactsync._ingest_batch(source text, events jsonb) RETURNS bigint[]
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	max_payload CONSTANT bigint := pg_catalog.pg_size_bytes(pg_catalog.current_setting('contactsync.max_payload'));
	bad record;
	result bigint[];
BEGIN
	IF events IS NULL OR pg_catalog.jsonb_typeof(events) <> 'array'
		OR EXISTS (SELECT FROM pg_catalog.jsonb_array_elements(events) e WHERE pg_catalog.jsonb_typeof(e) <> 'object') THEN
		RAISE EXCEPTION 'events must be a JSON array of objects' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Each object is keyed by the names of ingest()''s arguments.';
	END IF;
	SELECT k AS name INTO bad FROM pg_catalog.jsonb_array_elements(events) e, pg_catalog.jsonb_object_keys(e) k
	WHERE k <> ALL (ARRAY['source_id', 'payload', 'version', 'kind', 'seq', 'idempotency_key', 'coverage', 'created', 'changed']) LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'unknown argument "%" of an event', bad.name USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Each object is keyed by the names of ingest()''s arguments.';
	END IF;
	PERFORM contactsync._require_active();
	PERFORM contactsync._require_source(source);
	IF EXISTS (SELECT FROM pg_catalog.jsonb_array_elements(events) e WHERE e ? 'idempotency_key') THEN
		SELECT pg_catalog.array_agg(contactsync._ingest(_ingest_batch.source, x.source_id, x.payload, x.version, coalesce(x.kind, 'snapshot'),
			coalesce(x.seq, 0), x.idempotency_key, x.coverage, x.created, x.changed) ORDER BY x.i)
		INTO result
		FROM (SELECT r.*, e.i FROM pg_catalog.jsonb_array_elements(events) WITH ORDINALITY AS e (event, i),
			pg_catalog.jsonb_to_record(e.event) AS r (source_id text, payload jsonb, version timestamptz, kind text, seq bigint,
				idempotency_key text, coverage text[], created timestamptz, changed jsonb) ORDER BY e.i) x;
		RETURN coalesce(result, '{}');
	END IF;
	WITH event AS MATERIALIZED (
		SELECT e.i, e.source_id, e.payload, e.version, coalesce(e.kind, 'snapshot') AS kind, coalesce(e.seq, 0) AS seq, e.coverage, e.created,
			e.changed
		FROM ROWS FROM (pg_catalog.jsonb_to_recordset(events) AS (source_id text, payload jsonb, version timestamptz, kind text,
			seq bigint, coverage text[], created timestamptz, changed jsonb)) WITH ORDINALITY
			AS e (source_id, payload, version, kind, seq, coverage, created, changed, i)),
	fault AS MATERIALIZED (
		SELECT f.fault, e.kind FROM event e CROSS JOIN LATERAL (
			SELECT CASE WHEN pg_catalog.pg_column_size(e.payload) > max_payload THEN 'size'
				ELSE contactsync._event_fault(e.source_id, e.version, e.kind, e.seq, e.coverage, e.created) END) AS f (fault)
		WHERE f.fault <> '' ORDER BY e.i LIMIT 1),
	stored AS (
		INSERT INTO contactsync.inbox AS i (source, source_id, kind, version, seq, created, coverage, payload, changed)
		SELECT _ingest_batch.source, e.source_id, e.kind, e.version, e.seq, e.created, contactsync._coverage(e.coverage), e.payload,
			CASE WHEN e.changed IS NOT NULL THEN contactsync._changed(e.changed) END
		FROM event e WHERE NOT EXISTS (SELECT FROM fault) ORDER BY e.i RETURNING i.id)
	SELECT f.fault, f.kind, (SELECT pg_catalog.array_agg(s.id ORDER BY s.id) FROM stored s) AS ids
	INTO bad FROM (SELECT) AS one LEFT JOIN fault f ON true;
	PERFORM contactsync._refuse_event(coalesce(bad.fault, ''), bad.kind);
	RETURN coalesce(bad.ids, '{}');
END
$$;
CREATE FUNCTION contactsync.ingest_batch(source text, events jsonb) RETURNS bigint[]
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.ingest_batch(text, jsonb) IS
	'ingest() for an array of objects keyed by its argument names, all or nothing; returns the inbox ids in order.';

-- For whoever writes to sources: a source has confirmed that it now has these values, which were claims of the
-- records that origins names, by field or by field:key of an element. Inside the guard.
CREATE FUNCTION contactsync._confirm_write(source text, source_id text, payload jsonb, version timestamptz, origins jsonb,
	seq bigint DEFAULT 0) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	bad text;
	result bigint;
BEGIN
	PERFORM contactsync._require_source(source);
	PERFORM contactsync._refuse_event(contactsync._event_fault(source_id, version, 'patch', seq, NULL, NULL), 'patch');
	IF origins IS NULL OR pg_catalog.jsonb_typeof(origins) <> 'object' THEN
		RAISE EXCEPTION 'origins must be a JSON object' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	SELECT o.key INTO bad FROM pg_catalog.jsonb_each(origins) o
	WHERE pg_catalog.array_position(contactsync._coverage(ARRAY[o.key]), NULL) IS NOT NULL
		OR pg_catalog.jsonb_typeof(o.value) <> 'object'
		OR pg_catalog.jsonb_typeof(o.value -> 'source') IS DISTINCT FROM 'string'
		OR pg_catalog.jsonb_typeof(o.value -> 'source_id') IS DISTINCT FROM 'string'
		OR o.value - ARRAY['source', 'source_id'] <> '{}' LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'invalid origin of "%"', bad USING ERRCODE = 'invalid_parameter_value',
			HINT = 'It has a source and a source_id.';
	END IF;
	INSERT INTO contactsync.inbox AS i (source, source_id, kind, version, seq, payload, origins)
	VALUES (_confirm_write.source, _confirm_write.source_id, 'patch', _confirm_write.version, _confirm_write.seq,
		_confirm_write.payload, _confirm_write.origins)
	RETURNING i.id INTO result;
	RETURN result;
END
$$;

CREATE FUNCTION contactsync.process(max integer DEFAULT NULL) RETURNS integer
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'store_process_sql';
COMMENT ON FUNCTION contactsync.process(integer) IS
	'Apply up to max queued events (NULL = all) in this transaction, then contacts that a new policy left behind; returns the events applied. Waits for whoever changes the same tenant. Errors: 40001 if the transaction''s snapshot is older than the tenant''s state, 55000 dormant copy.';
CREATE FUNCTION contactsync._process_step(max integer) RETURNS boolean
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'store_process_step_sql';
CREATE PROCEDURE contactsync.drain()
	LANGUAGE plpgsql AS $$
DECLARE
	more boolean := true;
BEGIN
	WHILE more LOOP
		more := contactsync._process_step(5000);
		COMMIT;
	END LOOP;
END
$$;
COMMENT ON PROCEDURE contactsync.drain() IS
	'process() until nothing is due, with a commit after every 5000 events: for much at a time, and for pg_cron. Errors: 2D000 within a transaction block, 55000 dormant copy.';
GRANT EXECUTE ON FUNCTION contactsync._process_step(integer) TO contactsync_app, contactsync_admin;
GRANT EXECUTE ON PROCEDURE contactsync.drain() TO contactsync_app, contactsync_admin;
GRANT EXECUTE ON FUNCTION
	contactsync.ingest(text, text, jsonb, timestamptz, text, bigint, text, text[], timestamptz, jsonb),
	contactsync.ingest_batch(text, jsonb),
	contactsync.process(integer)
	TO contactsync_app, contactsync_admin, contactsync_worker;

CREATE FUNCTION contactsync._refold(records bigint[], cause text, cause_id bigint) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME', 'store_refold_sql';
CREATE FUNCTION contactsync._relink(records bigint[], cause text, cause_id bigint) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME', 'store_relink_sql';
CREATE FUNCTION contactsync._resolve_contacts(contacts uuid[], cause text, cause_id bigint) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME', 'store_resolve_contacts_sql';
