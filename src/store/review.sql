-- Manual review: settling what sources disagree about.

CREATE FUNCTION contactsync._resolve_conflict(conflict bigint, candidate integer, value jsonb, note text, seen text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	c contactsync.conflicts;
	chosen jsonb;
	decided jsonb;
	decision bigint;
BEGIN
	PERFORM contactsync._require_active();
	PERFORM contactsync._lock_tenant();
	SELECT k.* INTO c FROM contactsync.conflicts k
	WHERE k.tenant_id = contactsync.current_tenant() AND k.id = _resolve_conflict.conflict;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'conflict % does not exist', conflict USING ERRCODE = 'undefined_object',
			HINT = 'See contactsync.conflicts.';
	END IF;
	IF c.state = 'superseded' THEN
		RAISE EXCEPTION 'conflict % is no longer open', conflict USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'Its candidates agree by now.';
	END IF;
	IF seen IS NOT NULL AND seen <> c.seen THEN
		RAISE EXCEPTION 'the candidates of conflict % have changed', conflict USING ERRCODE = 'serialization_failure',
			HINT = 'Read contactsync.conflicts again, and decide on what it shows now.';
	END IF;
	IF (candidate IS NULL) = (value IS NULL) THEN
		RAISE EXCEPTION 'either a candidate or a value must be given' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'The value null as JSON decides that there is none.';
	END IF;
	IF candidate IS NOT NULL THEN
		chosen := c.candidates -> (candidate - 1);
		IF chosen IS NULL OR candidate < 1 THEN
			RAISE EXCEPTION 'conflict % has no candidate %', conflict, candidate USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Candidates are numbered from 1.';
		END IF;
		decided := chosen -> 'value';
	ELSIF value <> 'null' THEN
		decided := CASE
			WHEN c.field = 'metadata' THEN pg_catalog.jsonb_build_object('metadata', pg_catalog.jsonb_build_object(c.element, value))
			WHEN c.field IN ('job', 'name') THEN value
			ELSE pg_catalog.jsonb_build_object(c.field, value) END;
		-- it must be a value of the conflict's own cell
		PERFORM decided::contactsync.contact;
		IF EXISTS (SELECT FROM pg_catalog.jsonb_object_keys(decided) k WHERE k <> ALL (CASE c.field
				WHEN 'job' THEN ARRAY['company', 'department', 'title']
				WHEN 'name' THEN ARRAY['first_name', 'middle_name', 'last_name', 'prefix', 'suffix']
				ELSE ARRAY[c.field] END)) THEN
			RAISE EXCEPTION 'the value has members that do not belong to "%"', c.field USING ERRCODE = 'invalid_parameter_value';
		END IF;
	END IF;
	decision := contactsync._decide('resolve',
		(SELECT pg_catalog.array_agg(r.id ORDER BY r.id) FROM contactsync.records r
		 WHERE r.tenant_id = contactsync.current_tenant() AND r.contact_id = c.contact_id),
		field => c.field, element => c.element, value => decided, chosen => chosen ->> 'source',
		seen => (SELECT pg_catalog.array_agg(pg_catalog.decode(k ->> 'digest', 'hex')) FROM pg_catalog.jsonb_array_elements(c.candidates) k),
		note => _resolve_conflict.note);
	PERFORM contactsync._resolve_contacts(ARRAY[c.contact_id], 'decision', decision);
END
$$;
CREATE FUNCTION contactsync.resolve_conflict(conflict bigint, candidate integer DEFAULT NULL, value jsonb DEFAULT NULL,
	note text DEFAULT NULL, seen text DEFAULT NULL) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.resolve_conflict(bigint, integer, jsonb, text, text) IS
	'Settle a conflict by one of its candidates or by a new value; only another decision changes it again. seen: conflicts.seen as read, refused if the candidates have moved since. Errors: 42704, 22023, 40001 candidates have moved, 55000 not open.';
GRANT EXECUTE ON FUNCTION contactsync.resolve_conflict(bigint, integer, jsonb, text, text) TO contactsync_app, contactsync_admin;
