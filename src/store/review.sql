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
		decided := NULLIF(chosen -> 'value', '{}');
	ELSE
		SELECT d.decided INTO decided FROM contactsync._cell(contactsync._current_policy(), contactsync._cell_name(c.field, c.element), value) d;
	END IF;
	IF c.reason = 'candidates' THEN
		decision := contactsync._decide('resolve', contactsync._records_of(c.contact_id),
			field => c.field, element => c.element, value => decided, chosen => chosen ->> 'source',
			seen => (SELECT pg_catalog.array_agg(pg_catalog.decode(k ->> 'digest', 'hex')) FROM pg_catalog.jsonb_array_elements(c.candidates) k),
			note => _resolve_conflict.note);
	ELSE
		-- what was an override stays one, to be released some time
		decision := contactsync._decide('override', contactsync._records_of(c.contact_id),
			field => c.field, element => c.element, value => decided,
			chosen => CASE WHEN chosen ? 'source_id' THEN chosen ->> 'source' END,
			seen => contactsync._seen(c.contact_id, c.field, c.element), note => _resolve_conflict.note);
	END IF;
	PERFORM contactsync._resolve_contacts(ARRAY[c.contact_id], 'decision', decision);
END
$$;
CREATE FUNCTION contactsync.resolve_conflict(conflict bigint, candidate integer DEFAULT NULL, value jsonb DEFAULT NULL,
	note text DEFAULT NULL, seen text DEFAULT NULL) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.resolve_conflict(bigint, integer, jsonb, text, text) IS
	'Settle a conflict by one of its candidates or by a new value; only another decision changes it again. seen: conflicts.seen as read, refused if the candidates have moved since. Errors: 42704, 22023, 40001 candidates have moved, 55000 not open.';
GRANT EXECUTE ON FUNCTION contactsync.resolve_conflict(bigint, integer, jsonb, text, text) TO contactsync_app, contactsync_admin;
