-- Decisions: what was settled, never rewritten; an undo is a decision too.

-- The one place where decisions are made; under the tenant's lock.
CREATE FUNCTION contactsync._decide(kind text, records bigint[], others bigint[] DEFAULT NULL, field text DEFAULT NULL,
	element text DEFAULT '', value jsonb DEFAULT NULL, chosen text DEFAULT NULL, seen bytea[] DEFAULT NULL,
	target bigint DEFAULT NULL, part_of bigint DEFAULT NULL, note text DEFAULT NULL) RETURNS bigint
	LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$
	INSERT INTO contactsync.decisions (kind, records, others, field, element, value, chosen, seen, target, part_of, note, decided_at)
	VALUES (_decide.kind, _decide.records, _decide.others, _decide.field, coalesce(_decide.element, ''), _decide.value, _decide.chosen,
		_decide.seen, _decide.target, _decide.part_of, _decide.note,
		-- later than any decision before it, whatever the clock says; ids are given under the lock, and so in order
		GREATEST(pg_catalog.clock_timestamp(), (SELECT p.decided_at + interval '1 microsecond' FROM contactsync.decisions p
			WHERE p.tenant_id = contactsync.current_tenant() ORDER BY p.id DESC LIMIT 1)))
	RETURNING id
$$;

-- The undo in force of a decision, or of the one that it is a part of; NULL = it is in force itself.
CREATE FUNCTION contactsync._undone_by(decision bigint) RETURNS bigint
	LANGUAGE plpgsql STABLE PARALLEL UNSAFE AS $$
DECLARE
	result bigint;
BEGIN
	SELECT pg_catalog.min(u.id) INTO result FROM contactsync.decisions u
	WHERE u.tenant_id = contactsync.current_tenant() AND u.kind = 'undo' AND u.target = decision
		AND contactsync._undone_by(u.id) IS NULL;
	IF result IS NULL THEN
		SELECT contactsync._undone_by(d.part_of) INTO result FROM contactsync.decisions d
		WHERE d.tenant_id = contactsync.current_tenant() AND d.id = decision AND d.part_of IS NOT NULL;
	END IF;
	RETURN result;
END
$$;

-- Bring undone_by up to date after an undo; returns the decisions that came into force or went out of it.
CREATE FUNCTION contactsync._refresh_undone(undo bigint) RETURNS bigint[]
	LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$
	WITH RECURSIVE touched (id) AS (
		SELECT u.target FROM contactsync.decisions u WHERE u.tenant_id = contactsync.current_tenant() AND u.id = undo
		UNION
		SELECT n.id FROM touched t CROSS JOIN LATERAL (
			SELECT p.id FROM contactsync.decisions p WHERE p.tenant_id = contactsync.current_tenant() AND p.part_of = t.id
			UNION ALL
			SELECT u.target FROM contactsync.decisions u
			WHERE u.tenant_id = contactsync.current_tenant() AND u.id = t.id AND u.kind = 'undo') n),
	state AS MATERIALIZED (
		SELECT t.id, contactsync._undone_by(t.id) AS undone_by FROM touched t),
	moved AS (
		UPDATE contactsync.decisions d SET undone_by = s.undone_by FROM state s
		WHERE d.tenant_id = contactsync.current_tenant() AND d.id = s.id AND d.undone_by IS DISTINCT FROM s.undone_by
		RETURNING d.id)
	SELECT pg_catalog.array_agg(m.id) FROM moved m
$$;

-- Let what decisions came to say, or say no more, take effect: on links, then on values.
CREATE FUNCTION contactsync._apply_decisions(decisions bigint[], cause_id bigint) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	relinked bigint[];
	contacts uuid[];
BEGIN
	SELECT pg_catalog.array_agg(DISTINCT r) INTO relinked FROM contactsync.decisions d, pg_catalog.unnest(d.records || d.others) r
	WHERE d.tenant_id = contactsync.current_tenant() AND d.id = ANY (decisions) AND d.kind IN ('link', 'unlink', 'merge', 'split');
	IF relinked IS NOT NULL THEN
		PERFORM contactsync._refold(relinked, 'decision', cause_id);
	END IF;
	SELECT pg_catalog.array_agg(DISTINCT r.contact_id) INTO contacts
	FROM contactsync.decisions d, pg_catalog.unnest(d.records) u (id), contactsync.records r
	WHERE d.tenant_id = contactsync.current_tenant() AND d.id = ANY (decisions) AND d.kind IN ('resolve', 'override', 'release')
		AND r.tenant_id = contactsync.current_tenant() AND r.id = u.id AND r.contact_id IS NOT NULL;
	IF contacts IS NOT NULL THEN
		PERFORM contactsync._resolve_contacts(contacts, 'decision', cause_id);
	END IF;
END
$$;

CREATE FUNCTION contactsync._undo(decision bigint, reason text) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	d contactsync.decisions;
	result bigint;
BEGIN
	PERFORM contactsync._require_active();
	PERFORM contactsync._lock_tenant();
	SELECT x.* INTO d FROM contactsync.decisions x WHERE x.tenant_id = contactsync.current_tenant() AND x.id = decision;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'decision % does not exist', decision USING ERRCODE = 'undefined_object',
			HINT = 'See contactsync.decisions.';
	END IF;
	IF d.undone_by IS NOT NULL THEN
		RETURN d.undone_by;
	END IF;
	result := contactsync._decide('undo', d.records, others => d.others, target => d.id, note => reason);
	PERFORM contactsync._apply_decisions(contactsync._refresh_undone(result), result);
	RETURN result;
END
$$;
CREATE FUNCTION contactsync.undo(decision bigint, reason text DEFAULT NULL) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.undo(bigint, text) IS
	'Take a decision, with all of its parts, out of force, by a decision of its own, whose id is returned: undo that one, and the first is in force again. Of one that is undone already, the undo that did it. Errors: 42704 no such decision.';
GRANT EXECUTE ON FUNCTION contactsync.undo(bigint, text) TO contactsync_app, contactsync_admin;
