-- Contacts over time: what changed, and what was.

-- ---- changes ----

CREATE FUNCTION contactsync._changes(after text, max integer)
	RETURNS TABLE (id uuid, operation text, merged_into uuid, contact contactsync.contact, version bigint,
		changed_at timestamptz, token text)
	LANGUAGE plpgsql STABLE PARALLEL RESTRICTED AS $$
#variable_conflict use_column
DECLARE
	from_generation bigint := 0;
	from_id uuid := '00000000-0000-0000-0000-000000000000';
BEGIN
	IF max IS NULL OR max < 0 THEN
		RAISE EXCEPTION 'the number of changes must not be negative' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Give a number of rows, or leave max out.';
	END IF;
	IF after IS NOT NULL THEN
		IF after !~ '^[0-9]{1,18}:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN
			RAISE EXCEPTION 'not a token of changes()' USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Give the token of the last row that was read, or NULL to read from the start.';
		END IF;
		from_generation := pg_catalog.split_part(after, ':', 1)::bigint;
		from_id := pg_catalog.split_part(after, ':', 2)::uuid;
		IF from_generation > coalesce((SELECT t.generation FROM contactsync.tenant_state t
				WHERE t.tenant_id = contactsync.current_tenant()), 0) THEN
			RAISE EXCEPTION 'token "%" is ahead of this tenant''s state', after USING ERRCODE = 'invalid_parameter_value',
				DETAIL = 'It was given by another tenant or database, by this one before it was restored, or in a transaction that was rolled back.',
				HINT = 'Read from the start, with NULL, and compare.';
		END IF;
	END IF;
	RETURN QUERY
	SELECT u.id, u.operation, u.merged_into, u.contact, u.version, u.changed_at, u.generation || ':' || u.id
	FROM (
		(SELECT c.generation, c.id, CASE WHEN c.live THEN 'upsert' ELSE 'delete' END AS operation, NULL::uuid AS merged_into,
			CASE WHEN c.live THEN c.contact END AS contact, c.version, c.last_modified AS changed_at
		FROM contactsync.contacts c
		WHERE c.tenant_id = contactsync.current_tenant() AND (c.generation, c.id) > (from_generation, from_id)
		ORDER BY c.generation, c.id LIMIT max)
		UNION ALL
		-- the last time only, and only while the id has not become a contact's again
		(SELECT e.generation, e.contact_id, 'merge', (SELECT r.contact_id FROM contactsync.contact_aliases a, contactsync.records r
				WHERE a.tenant_id = e.tenant_id AND a.id = e.contact_id AND r.tenant_id = a.tenant_id AND r.id = a.record_id),
			NULL, NULL, e.at
		FROM contactsync.contact_events e
		WHERE e.tenant_id = contactsync.current_tenant() AND e.event = 'merged'
			AND (e.generation, e.contact_id) > (from_generation, from_id)
			AND NOT EXISTS (SELECT FROM contactsync.contacts c WHERE c.tenant_id = e.tenant_id AND c.id = e.contact_id)
			AND NOT EXISTS (SELECT FROM contactsync.contact_events l WHERE l.tenant_id = e.tenant_id AND l.contact_id = e.contact_id
				AND l.event = 'merged' AND (l.generation, l.id) > (e.generation, e.id))
		ORDER BY e.generation, e.contact_id LIMIT max)
	) u
	ORDER BY u.generation, u.id LIMIT max;
END
$$;
CREATE FUNCTION contactsync.changes(after text DEFAULT NULL, max integer DEFAULT 1000)
	RETURNS TABLE (id uuid, operation text, merged_into uuid, contact contactsync.contact, version bigint,
		changed_at timestamptz, token text)
	LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.changes(text, integer) IS
	'Contacts changed since a token (NULL = since the start), each once, as it is now, in the order of commits: upsert, delete, or merge into another contact; at most max. Keep the token of the last row and go on from there: nothing is left out, whoever commits when. Errors: 22023 no token, or one from elsewhere.';
GRANT EXECUTE ON FUNCTION contactsync.changes(text, integer) TO contactsync_app, contactsync_analyst, contactsync_admin;

-- ---- time travel ----

-- Since when the audit log is complete: NULL = it holds nothing.
CREATE FUNCTION contactsync._audit_since() RETURNS timestamptz
	LANGUAGE sql STABLE PARALLEL RESTRICTED AS $$
	SELECT pg_catalog.min(CASE WHEN b.bound LIKE 'FOR VALUES FROM (''%' THEN pg_catalog.split_part(b.bound, '''', 2)::timestamptz
		ELSE '-infinity' END)
	FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
		CROSS JOIN LATERAL pg_catalog.pg_get_expr(c.relpartbound, c.oid) AS b (bound)
	WHERE i.inhparent = 'contactsync.audit_log'::pg_catalog.regclass
$$;

-- Backwards from what is: of each field the value before its first change after
-- the time asked for.  What an erasure has removed from the log stays removed.
CREATE FUNCTION contactsync._contact_as_of(id uuid, ts timestamptz) RETURNS contactsync.contact
	LANGUAGE plpgsql STABLE PARALLEL RESTRICTED STRICT AS $$
DECLARE
	who uuid := id;
	hops integer := 0;
	next_operation text;
	merged contactsync.contact_events;
	result jsonb;
BEGIN
	LOOP
		IF NOT EXISTS (SELECT FROM contactsync.contact_aliases a
				WHERE a.tenant_id = contactsync.current_tenant() AND a.id = who AND a.minted_at <= ts) THEN
			RETURN NULL;
		END IF;
		IF ts < coalesce(contactsync._audit_since(), 'infinity') THEN
			RAISE EXCEPTION 'the audit log does not reach back to %', ts USING ERRCODE = 'invalid_parameter_value',
				DETAIL = pg_catalog.format('It begins at %s.', coalesce(contactsync._audit_since()::text, 'no time: it is empty')),
				HINT = 'Attach the older partitions of contactsync.audit_log again, or ask for a later time.';
		END IF;
		SELECT l.operation INTO next_operation FROM contactsync.audit_log l
		WHERE l.tenant_id = contactsync.current_tenant() AND l.relation = 'contacts' AND l.row_key = who::text AND l.at > ts
		ORDER BY l.at, l.id LIMIT 1;
		SELECT (c.contact::jsonb) - '_provenance' INTO result FROM contactsync.contacts c
		WHERE c.tenant_id = contactsync.current_tenant() AND c.id = who AND c.live;
		IF next_operation <> 'insert' OR (next_operation IS NULL AND result IS NOT NULL) THEN
			SELECT coalesce(result, '{}') || coalesce(pg_catalog.jsonb_object_agg(o.field, o.old), '{}') INTO result
			FROM (SELECT DISTINCT ON (f.key) f.key AS field, coalesce(f.value -> 'old', 'null') AS old
				FROM contactsync.audit_log l CROSS JOIN LATERAL pg_catalog.jsonb_each(l.changed) f
				WHERE l.tenant_id = contactsync.current_tenant() AND l.relation = 'contacts' AND l.row_key = who::text AND l.at > ts
				ORDER BY f.key, l.at, l.id) o;
			SELECT coalesce(pg_catalog.jsonb_object_agg(f.key, f.value), '{}') INTO result
			FROM pg_catalog.jsonb_each(result) f WHERE f.value <> 'null';
			RETURN result::contactsync.contact;
		END IF;

		-- not a contact of its own then: it may have named another
		SELECT e.* INTO merged FROM contactsync.contact_events e
		WHERE e.tenant_id = contactsync.current_tenant() AND e.contact_id = who AND e.event = 'merged' AND e.at <= ts
			AND NOT EXISTS (SELECT FROM contactsync.audit_log l
				WHERE l.tenant_id = contactsync.current_tenant() AND l.relation = 'contacts' AND l.row_key = who::text
					AND l.at > e.at AND l.at <= ts AND l.operation <> 'merge')
		ORDER BY e.generation DESC, e.id DESC LIMIT 1;
		hops := hops + 1;
		IF NOT FOUND OR merged.other_id = who OR hops > 1000 THEN
			RETURN NULL;
		END IF;
		who := merged.other_id;
	END LOOP;
END
$$;
CREATE FUNCTION contactsync.contact_as_of(id uuid, ts timestamptz) RETURNS contactsync.contact
	LANGUAGE C STABLE PARALLEL RESTRICTED STRICT AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.contact_as_of(uuid, timestamptz) IS
	'What the id named at a time, as this database knew it then (transaction time), without provenance; NULL before it was known and while it was deleted. Values that were erased stay so. Errors: 22023 the audit log does not reach back that far.';
GRANT EXECUTE ON FUNCTION contactsync.contact_as_of(uuid, timestamptz) TO contactsync_app, contactsync_analyst, contactsync_admin;
