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
