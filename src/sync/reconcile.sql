-- reconcile(): a full read that says what it found other than it was.

CREATE TABLE contactsync.drift (
	tenant_id  text COLLATE "C" NOT NULL DEFAULT contactsync.current_tenant(),
	run        bigint NOT NULL,
	source     text COLLATE "C" NOT NULL,
	source_id  text COLLATE "C" NOT NULL,
	contact_id uuid,
	field      text COLLATE "C" NOT NULL,
	stored     jsonb,
	at_source  jsonb,
	PRIMARY KEY (tenant_id, run, source_id, field)
);
COMMENT ON TABLE contactsync.drift IS 'What each run of reconcile() found other than it was stored, field by field, noted before it was applied; goes with its run.';
COMMENT ON COLUMN contactsync.drift.contact_id IS 'The contact of the record, before; NULL = the record was not known.';
COMMENT ON COLUMN contactsync.drift.stored IS 'The value of the record as it was stored; NULL = none, as for all of a record that was not known or was deleted.';
COMMENT ON COLUMN contactsync.drift.at_source IS 'The value that the source showed; NULL = none, as for all of a record that it did not show.';
ALTER TABLE contactsync.drift OWNER TO contactsync_owner;
ALTER TABLE contactsync.drift ENABLE ROW LEVEL SECURITY;
ALTER TABLE contactsync.drift FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON contactsync.drift
	USING (tenant_id = contactsync.current_tenant()) WITH CHECK (tenant_id = contactsync.current_tenant());
SELECT pg_catalog.pg_extension_config_dump('contactsync.drift', '');
GRANT SELECT ON contactsync.drift TO contactsync_app, contactsync_analyst, contactsync_admin;

CREATE FUNCTION contactsync._add_drift(run contactsync.runs, source_id text, contact_id uuid, difference jsonb) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$
	INSERT INTO contactsync.drift (run, source, source_id, contact_id, field, stored, at_source)
	SELECT run.id, run.source, _add_drift.source_id, _add_drift.contact_id, d.key, NULLIF(d.value -> 'old', 'null'), NULLIF(d.value -> 'new', 'null')
	FROM pg_catalog.jsonb_each(difference) d
	-- a page that is read again after a crash, or an item that is listed twice: as it was shown last
	ON CONFLICT ON CONSTRAINT drift_pkey DO UPDATE SET at_source = excluded.at_source
$$;

-- Of a page that is not applied yet. What cannot be read is in the inbox, with its reason.
CREATE FUNCTION contactsync._note_drift(run contactsync.runs, ids text[], kinds text[], payloads jsonb[], faults text[]) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	connector CONSTANT text := (SELECT s.connector FROM contactsync.sources s
		WHERE s.tenant_id = contactsync.current_tenant() AND s.name = run.source);
	item record;
	shown contactsync.contact;
BEGIN
	FOR item IN
		SELECT u.id, u.kind, u.payload, r.contact_id, CASE WHEN r.alive THEN r.state END AS state
		FROM ROWS FROM (pg_catalog.unnest(ids), pg_catalog.unnest(kinds), pg_catalog.unnest(payloads), pg_catalog.unnest(faults))
			AS u (id, kind, payload, fault)
		LEFT JOIN contactsync.records r ON r.tenant_id = contactsync.current_tenant() AND r.source = run.source AND r.source_id = u.id
		WHERE u.kind IN ('snapshot', 'gone', 'delete', 'merged') AND u.fault IS NULL
	LOOP
		shown := NULL;
		IF item.kind = 'snapshot' THEN
			BEGIN
				shown := contactsync._map(connector, item.payload);
			EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
				CONTINUE;
			END;
		END IF;
		PERFORM contactsync._add_drift(run, item.id, item.contact_id, contactsync.contact_diff(item.state, shown));
	END LOOP;
END
$$;

-- Those that the run did not show, though it is not always enough to believe them deleted.
CREATE FUNCTION contactsync._note_absent(run contactsync.runs) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$
	SELECT contactsync._add_drift(run, r.source_id, r.contact_id, contactsync.contact_diff(r.state, NULL))
	FROM contactsync.records r
	WHERE r.tenant_id = contactsync.current_tenant() AND r.source = run.source AND r.alive
		AND (r.seen_at IS NULL OR r.seen_at < run.stamp) AND r.last_effective < run.stamp AND r.first_known_at < run.stamp
$$;

CREATE FUNCTION contactsync._reconcile(source text) RETURNS bigint
	LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$SELECT contactsync._request_run(source, true, 'reconcile')$$;
CREATE FUNCTION contactsync.reconcile(source text) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.reconcile(text) IS
	'Queue a full read of a source that notes in contactsync.drift, field by field, what it finds other than it is stored, and then is applied as any full read; returns the run''s id. One that is queued already serves. Errors: 42704, 55000 paused, push-only or dormant.';
GRANT EXECUTE ON FUNCTION contactsync.reconcile(text) TO contactsync_app, contactsync_admin;
