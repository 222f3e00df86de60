-- Manual review: settling what sources disagree about.

-- The decision that settles a conflict; what was an override stays one, to be released some time.
CREATE FUNCTION contactsync._settle(who uuid, cell_field text, cell_element text, reason text, candidates jsonb, decided jsonb, chosen text,
	note text, whole bigint) RETURNS bigint
	LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$
	SELECT contactsync._decide(CASE reason WHEN 'candidates' THEN 'resolve' ELSE 'override' END, contactsync._records_of(who),
		field => cell_field, element => cell_element, value => decided, chosen => NULLIF(chosen, 'decision'),
		seen => CASE reason WHEN 'candidates' THEN
				(SELECT pg_catalog.array_agg(pg_catalog.decode(k ->> 'digest', 'hex')) FROM pg_catalog.jsonb_array_elements(candidates) k)
			ELSE contactsync._seen(who, cell_field, cell_element) END,
		part_of => whole, note => note)
$$;

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
		chosen := CASE WHEN candidate >= 1 THEN c.candidates -> (candidate - 1) END;
		IF chosen IS NULL THEN
			RAISE EXCEPTION 'conflict % has no candidate %', conflict, candidate USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Candidates are numbered from 1.';
		END IF;
		decided := NULLIF(chosen -> 'value', '{}');
	ELSE
		SELECT d.decided INTO decided FROM contactsync._cell(contactsync._current_policy(), contactsync._cell_name(c.field, c.element), value) d;
	END IF;
	decision := contactsync._settle(c.contact_id, c.field, c.element, c.reason, c.candidates, decided, chosen ->> 'source', note, NULL);
	PERFORM contactsync._resolve_contacts(ARRAY[c.contact_id], 'decision', decision);
END
$$;
CREATE FUNCTION contactsync.resolve_conflict(conflict bigint, candidate integer DEFAULT NULL, value jsonb DEFAULT NULL,
	note text DEFAULT NULL, seen text DEFAULT NULL) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.resolve_conflict(bigint, integer, jsonb, text, text) IS
	'Settle a conflict by one of its candidates or by a new value; only another decision changes it again. seen: conflicts.seen as read, refused if the candidates have moved since. Errors: 42704, 22023, 40001 candidates have moved, 55000 not open.';
GRANT EXECUTE ON FUNCTION contactsync.resolve_conflict(bigint, integer, jsonb, text, text) TO contactsync_app, contactsync_admin;

CREATE FUNCTION contactsync._assign_conflict(conflict bigint, assignee text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	c contactsync.conflicts;
BEGIN
	PERFORM contactsync._require_active();
	PERFORM contactsync._lock_tenant();
	SELECT k.* INTO c FROM contactsync.conflicts k
	WHERE k.tenant_id = contactsync.current_tenant() AND k.id = _assign_conflict.conflict;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'conflict % does not exist', conflict USING ERRCODE = 'undefined_object',
			HINT = 'See contactsync.conflicts.';
	END IF;
	IF c.state NOT IN ('open', 'assigned') THEN
		RAISE EXCEPTION 'conflict % is no longer open', conflict USING ERRCODE = 'object_not_in_prerequisite_state',
			HINT = 'There is nothing to be decided about it.';
	END IF;
	UPDATE contactsync.conflicts k SET assignee = NULLIF(_assign_conflict.assignee, ''),
		assigned_at = CASE WHEN _assign_conflict.assignee <> '' THEN pg_catalog.clock_timestamp() END,
		state = CASE WHEN _assign_conflict.assignee <> '' THEN 'assigned' ELSE 'open' END,
		changed_at = pg_catalog.clock_timestamp()
	WHERE k.tenant_id = contactsync.current_tenant() AND k.id = _assign_conflict.conflict
		AND k.assignee IS DISTINCT FROM NULLIF(_assign_conflict.assignee, '');
END
$$;
CREATE FUNCTION contactsync.assign_conflict(conflict bigint, assignee text) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.assign_conflict(bigint, text) IS
	'Give an open conflict to somebody, by whatever name you know them; NULL = to nobody again. It stays theirs if it is opened anew. Errors: 42704 no such conflict, 55000 not open.';

-- Each conflict is decided by itself, and all of them are undone with the whole.
CREATE FUNCTION contactsync._resolve_conflicts(conflicts bigint[], sources text[], note text) RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	c record;
	whole bigint;
	done integer := 0;
	given integer;
	touched uuid[] := '{}';
BEGIN
	PERFORM contactsync._require_active();
	PERFORM contactsync._lock_tenant();
	IF conflicts IS NULL OR sources IS NULL OR pg_catalog.cardinality(sources) = 0 THEN
		RAISE EXCEPTION 'conflicts and sources must be given' USING ERRCODE = 'null_value_not_allowed',
			HINT = 'Name the sources, or classes of them, whose candidate shall be chosen, best first.';
	END IF;
	FOR c IN
		SELECT k.id, k.contact_id, k.field, k.element, k.reason, k.candidates, chosen.candidate
		FROM contactsync.conflicts k
		CROSS JOIN LATERAL (
			SELECT x.candidate FROM pg_catalog.jsonb_array_elements(k.candidates) x (candidate)
			LEFT JOIN contactsync.sources s ON s.tenant_id = k.tenant_id AND s.name = x.candidate ->> 'source'
			CROSS JOIN LATERAL (SELECT coalesce(pg_catalog.array_position(_resolve_conflicts.sources, x.candidate ->> 'source'),
				pg_catalog.array_position(_resolve_conflicts.sources, s.class))) p (place)
			WHERE x.candidate ? 'source_id' AND p.place IS NOT NULL
			ORDER BY p.place, (x.candidate -> 'candidate')::integer LIMIT 1) chosen
		WHERE k.tenant_id = contactsync.current_tenant() AND k.id = ANY (_resolve_conflicts.conflicts) AND k.state IN ('open', 'assigned')
		ORDER BY k.id
	LOOP
		whole := coalesce(whole, contactsync._decide('bulk', '{}', note => _resolve_conflicts.note));
		PERFORM contactsync._settle(c.contact_id, c.field, c.element, c.reason, c.candidates,
			NULLIF(c.candidate -> 'value', '{}'), c.candidate ->> 'source', _resolve_conflicts.note, whole);
		touched := touched || c.contact_id;
		done := done + 1;
		IF pg_catalog.cardinality(touched) >= 1000 THEN
			PERFORM contactsync._resolve_contacts(touched, 'decision', whole);
			touched := '{}';
		END IF;
	END LOOP;
	IF touched <> '{}' THEN
		PERFORM contactsync._resolve_contacts(touched, 'decision', whole);
	END IF;
	SELECT pg_catalog.count(DISTINCT u) INTO given FROM pg_catalog.unnest(conflicts) u;
	IF done < given THEN
		RAISE NOTICE '% of % conflicts were left as they are', given - done, given USING
			HINT = 'They are not open, or have no candidate of these sources.';
	END IF;
	RETURN done;
END
$$;
CREATE FUNCTION contactsync.resolve_conflicts(conflicts bigint[], sources text[], note text DEFAULT NULL) RETURNS integer
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.resolve_conflicts(bigint[], text[], text) IS
	'Settle many conflicts at once, each by the candidate of the first of these sources, or classes of them, that has one; returns how many. Those that are not open or have no such candidate are left, with a NOTICE. undo() of the decision that theirs are part_of takes all of them back. Errors: 22004.';
GRANT EXECUTE ON FUNCTION contactsync.assign_conflict(bigint, text), contactsync.resolve_conflicts(bigint[], text[], text)
	TO contactsync_app, contactsync_admin;

CREATE VIEW contactsync.conflict_queue WITH (security_invoker = true) AS
SELECT k.id,
	k.contact_id,
	contactsync._cell_name(k.field, k.element) AS field,
	k.reason,
	k.state,
	k.assignee,
	k.opened_at,
	pg_catalog.clock_timestamp() - k.opened_at AS age,
	pg_catalog.jsonb_array_length(k.candidates) AS candidates,
	k.seen
FROM contactsync.conflicts k
WHERE k.tenant_id = contactsync.current_tenant() AND k.state IN ('open', 'assigned');
COMMENT ON VIEW contactsync.conflict_queue IS 'Conflicts to be decided, with their age; ORDER BY opened_at for the oldest first.';

CREATE VIEW contactsync.conflict_counts WITH (security_invoker = true) AS
SELECT k.field,
	k.reason,
	k.state,
	pg_catalog.count(*) AS conflicts,
	pg_catalog.min(k.opened_at) AS oldest
FROM contactsync.conflicts k
WHERE k.tenant_id = contactsync.current_tenant()
GROUP BY k.field, k.reason, k.state;
COMMENT ON VIEW contactsync.conflict_counts IS 'How many conflicts there are of each field, reason and state, and when the oldest of them was opened.';
GRANT SELECT ON contactsync.conflict_queue, contactsync.conflict_counts TO contactsync_app, contactsync_analyst, contactsync_admin;
