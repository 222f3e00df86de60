-- Keeping tables small: old observations in one, and what nobody will ask for again.

CREATE FUNCTION contactsync._compact(before timestamptz, max integer) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'store_compact_sql';
CREATE FUNCTION contactsync.compact(before timestamptz, max integer DEFAULT NULL) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.compact(timestamptz, integer) IS
	'Replace what was observed of each record before a time by one base observation, and return how many observations are gone; stops after the batch that brings them to max, so that it can go on in another transaction. Results stay what they are, whatever comes later, but for observations that are not newer than a base: those are kept as late, reported, and never merged. The payloads are gone, too. Errors: 22004, 22023 in the future, 40001, 55000 dormant copy.';
GRANT EXECUTE ON FUNCTION contactsync.compact(timestamptz, integer) TO contactsync_admin;

CREATE VIEW contactsync.late_observations WITH (security_invoker = true) AS
SELECT r.source, r.source_id, r.contact_id, o.id AS observation_id, o.kind, o.version, r.horizon, o.received_at, o.payload
FROM contactsync.observations o
JOIN contactsync.records r ON r.tenant_id = o.tenant_id AND r.id = o.record_id
WHERE o.tenant_id = contactsync.current_tenant() AND o.late;
COMMENT ON VIEW contactsync.late_observations IS
	'Observations of the active tenant that came after their record had been compacted beyond their version: kept, but not merged.';
GRANT SELECT ON contactsync.late_observations TO contactsync_app, contactsync_analyst, contactsync_admin;

-- Nothing that a result depends on: an event id that is forgotten lets its repetition in, whose observation is known.
CREATE FUNCTION contactsync._prune() RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	dedup CONSTANT integer := pg_catalog.current_setting('contactsync.dedup_retention');
	run CONSTANT integer := pg_catalog.current_setting('contactsync.run_retention');
	n bigint;
	result bigint := 0;
BEGIN
	PERFORM contactsync._require_active();
	IF dedup > 0 THEN
		DELETE FROM contactsync.inbox_dedup d
		WHERE d.tenant_id = contactsync.current_tenant() AND d.seen_at < pg_catalog.now() - pg_catalog.make_interval(days => dedup);
		GET DIAGNOSTICS result = ROW_COUNT;
	END IF;
	IF run > 0 THEN
		-- one that holds deletes, or whose certificate is still to be applied, has not said its last word
		DELETE FROM contactsync.runs x
		WHERE x.tenant_id = contactsync.current_tenant() AND x.finished_at < pg_catalog.now() - pg_catalog.make_interval(days => run)
			AND x.held_deletes = 0 AND NOT (x.certified AND NOT x.certificate_applied)
			AND EXISTS (SELECT FROM contactsync.runs y WHERE y.tenant_id = x.tenant_id AND y.source = x.source AND y.id > x.id);
		GET DIAGNOSTICS n = ROW_COUNT;
		result := result + n;
		DELETE FROM contactsync.drift d WHERE d.tenant_id = contactsync.current_tenant()
			AND NOT EXISTS (SELECT FROM contactsync.runs x WHERE x.tenant_id = d.tenant_id AND x.id = d.run);
	END IF;
	PERFORM contactsync._prune_attempts();
	RETURN result;
END
$$;
CREATE FUNCTION contactsync.prune() RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.prune() IS
	'Forget event ids and idempotency keys older than contactsync.dedup_retention days, and finished runs older than contactsync.run_retention days, and return how many; and the days of attempts older than contactsync.attempt_retention; the worker does so each hour. Errors: 55000 dormant copy.';
GRANT EXECUTE ON FUNCTION contactsync.prune() TO contactsync_admin;
