-- Decisions: what was settled, never rewritten; an undo is a decision too.

-- The one place where decisions are made; under the tenant's lock.
CREATE FUNCTION contactsync._decide(kind text, records bigint[], others bigint[] DEFAULT NULL, field text DEFAULT NULL,
	element text DEFAULT '', value jsonb DEFAULT NULL, chosen text DEFAULT NULL, seen bytea[] DEFAULT NULL,
	target bigint DEFAULT NULL, part_of bigint DEFAULT NULL, note text DEFAULT NULL, contact_id uuid DEFAULT NULL) RETURNS bigint
	LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$
	WITH made AS (
		INSERT INTO contactsync.decisions AS d (kind, records, others, field, element, value, chosen, seen, target, part_of, note, contact_id, decided_at)
		VALUES (_decide.kind, _decide.records, _decide.others, _decide.field, coalesce(_decide.element, ''), _decide.value, _decide.chosen,
			_decide.seen, _decide.target, _decide.part_of, _decide.note, _decide.contact_id,
			-- later than any decision before it, whatever the clock says; ids are given under the lock, and so in order
			GREATEST(pg_catalog.clock_timestamp(), (SELECT p.decided_at + interval '1 microsecond' FROM contactsync.decisions p
				WHERE p.tenant_id = contactsync.current_tenant() ORDER BY p.id DESC LIMIT 1)))
		RETURNING d.id),
	named AS (
		INSERT INTO contactsync.decision_records (record_id, decision_id)
		SELECT DISTINCT r, m.id FROM made m, pg_catalog.unnest(_decide.records || _decide.others) r)
	SELECT id FROM made
$$;

-- Bring undone_by of decisions up to date, the undo in force of each or of its whole, and of what depends on
-- them: their parts, and what they undo.  Returns those that came into force or went out of it.
CREATE FUNCTION contactsync._refresh_undone(decisions bigint[]) RETURNS bigint[]
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	due bigint[] := decisions;
	moved bigint[];
	result bigint[];
BEGIN
	-- not by recursion: undos of undos may be many.  It ends, as an undo is later than what it undoes.
	LOOP
		WITH now AS MATERIALIZED (
			SELECT t.id, coalesce(
				(SELECT pg_catalog.min(u.id) FROM contactsync.decisions u
				WHERE u.tenant_id = contactsync.current_tenant() AND u.target = t.id AND u.kind = 'undo' AND u.undone_by IS NULL),
				(SELECT w.undone_by FROM contactsync.decisions d
				JOIN contactsync.decisions w ON w.tenant_id = d.tenant_id AND w.id = d.part_of
				WHERE d.tenant_id = contactsync.current_tenant() AND d.id = t.id)) AS undone_by
			FROM pg_catalog.unnest(due) t (id)),
		changed AS (
			UPDATE contactsync.decisions d SET undone_by = n.undone_by FROM now n
			WHERE d.tenant_id = contactsync.current_tenant() AND d.id = n.id AND d.undone_by IS DISTINCT FROM n.undone_by
			RETURNING d.id, d.kind, d.target)
		SELECT pg_catalog.array_agg(DISTINCT c.id), pg_catalog.array_agg(DISTINCT n.id) INTO moved, due
		FROM changed c LEFT JOIN LATERAL (
			SELECT p.id FROM contactsync.decisions p WHERE p.tenant_id = contactsync.current_tenant() AND p.part_of = c.id
			UNION ALL
			SELECT c.target WHERE c.kind = 'undo') n ON true;
		EXIT WHEN moved IS NULL;
		result := result || moved;
		due := pg_catalog.array_remove(due, NULL);
	END LOOP;
	RETURN result;
END
$$;

-- Let what decisions came to say, or say no more, take effect: on links, then on values.
CREATE FUNCTION contactsync._apply_decisions(decisions bigint[], cause_id bigint) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	contacts uuid[];
BEGIN
	PERFORM contactsync._apply_links(decisions, cause_id);
	-- some at a time, as process() does
	FOR contacts IN
		SELECT pg_catalog.array_agg(n.contact_id) FROM (
			SELECT r.contact_id, pg_catalog.row_number() OVER () AS i
			FROM contactsync.decisions d, pg_catalog.unnest(d.records) u (id), contactsync.records r
			WHERE d.tenant_id = contactsync.current_tenant() AND d.id = ANY (decisions) AND d.kind IN ('resolve', 'override', 'release')
				AND r.tenant_id = contactsync.current_tenant() AND r.id = u.id AND r.contact_id IS NOT NULL
			GROUP BY r.contact_id) n
		GROUP BY n.i / 1000
	LOOP
		PERFORM contactsync._resolve_contacts(contacts, 'decision', cause_id);
	END LOOP;
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
	PERFORM contactsync._apply_decisions(contactsync._refresh_undone(ARRAY[d.id]), result);
	RETURN result;
END
$$;
CREATE FUNCTION contactsync.undo(decision bigint, reason text DEFAULT NULL) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.undo(bigint, text) IS
	'Take a decision, with all of its parts, out of force, by a decision of its own, whose id is returned: undo that one, and the first is in force again. Of one that is undone already, the undo that did it. Errors: 42704 no such decision.';
GRANT EXECUTE ON FUNCTION contactsync.undo(bigint, text) TO contactsync_app, contactsync_admin;

-- ---- overrides ----

CREATE FUNCTION contactsync._cell(policy contactsync.merge_policy, name text, value jsonb, OUT field text, OUT element text, OUT decided jsonb)
	LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'store_cell_sql';
CREATE FUNCTION contactsync._unit(field text) RETURNS text
	LANGUAGE sql STABLE PARALLEL RESTRICTED AS 'SELECT contactsync.merge_policy_unit(contactsync._current_policy(), field)';
CREATE FUNCTION contactsync._seen(contact uuid, field text, element text) RETURNS bytea[]
	LANGUAGE C STABLE PARALLEL UNSAFE STRICT AS 'MODULE_PATHNAME', 'store_seen_sql';
-- What views call has its body parsed here: the caller's search path has no say in it.

-- A cell's name as users give it.
CREATE FUNCTION contactsync._cell_name(field text, element text) RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
	RETURN field || CASE WHEN element = '' THEN '' WHEN field = 'metadata' THEN '.' || element ELSE ':' || element END;
-- Does a contact have a value for a single field or an element?
CREATE FUNCTION contactsync._has(contact contactsync.contact, field text, element text) RETURNS boolean
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	RETURN contactsync.contact_provenance(contact) ? (field || CASE WHEN element = '' THEN '' ELSE ':' || element END);
-- A cell's value out of the contact that a decision keeps it as.
CREATE FUNCTION contactsync._cell_value(field text, element text, decided jsonb) RETURNS jsonb
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	RETURN coalesce(CASE WHEN NOT decided ? field THEN decided
		WHEN element = '' THEN decided -> field
		WHEN field = 'metadata' THEN decided -> field -> element
		ELSE decided -> field -> 0 END, 'null');

CREATE FUNCTION contactsync._records_of(contact uuid) RETURNS bigint[]
	LANGUAGE sql STABLE PARALLEL UNSAFE AS $$
	SELECT pg_catalog.array_agg(r.id ORDER BY r.id) FROM contactsync.records r
	WHERE r.tenant_id = contactsync.current_tenant() AND r.contact_id = contact
$$;

-- Decisions in force on cells of a unit of the contact that has these records, the latest first.
CREATE FUNCTION contactsync._in_force(records bigint[], unit text) RETURNS SETOF contactsync.decisions
	LANGUAGE sql STABLE PARALLEL UNSAFE AS $$
	WITH p AS MATERIALIZED (SELECT contactsync._current_policy() AS policy)
	SELECT d.* FROM p CROSS JOIN (
		SELECT DISTINCT n.decision_id FROM pg_catalog.unnest(_in_force.records) r (id) CROSS JOIN LATERAL (
			SELECT x.decision_id FROM contactsync.decision_records x
			WHERE x.tenant_id = contactsync.current_tenant() AND x.record_id = r.id OFFSET 0) n) n
	CROSS JOIN LATERAL (
		SELECT x.* FROM contactsync.decisions x WHERE x.tenant_id = contactsync.current_tenant() AND x.id = n.decision_id OFFSET 0) d
	WHERE d.undone_by IS NULL
		AND CASE WHEN d.kind IN ('resolve', 'override') THEN contactsync.merge_policy_unit(p.policy, d.field) = unit ELSE false END
		AND NOT EXISTS (SELECT FROM contactsync.decisions l
			WHERE l.tenant_id = d.tenant_id AND l.target = d.id AND l.kind = 'release' AND l.undone_by IS NULL
				AND l.records && _in_force.records)
	ORDER BY d.decided_at DESC, d.id DESC
$$;

-- Decide a cell of a contact, if that says something new; the decision, and whether it was made.
CREATE FUNCTION contactsync._override(who uuid, cell_field text, cell_element text, decided jsonb, chosen text, reason text, whole bigint,
	OUT decision bigint, OUT made boolean)
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	mine CONSTANT bigint[] := contactsync._records_of(who);
	unit CONSTANT text := contactsync._unit(cell_field);
	d contactsync.decisions;
BEGIN
	-- the last word on the cell or on one that shares values with it
	SELECT f.* INTO d FROM contactsync._in_force(mine, unit) f
	WHERE (f.field, f.element) = (cell_field, cell_element)
		OR f.element = '' AND f.field = unit
		OR cell_element = '' AND cell_field = unit
	LIMIT 1;
	made := NOT (d.id IS NOT NULL AND d.kind = 'override' AND (d.field, d.element) = (cell_field, cell_element)
		AND d.value IS NOT DISTINCT FROM decided
		-- of what was parted since, it is in force on neither side
		AND d.records OPERATOR(pg_catalog.<@) mine
		AND NOT EXISTS (SELECT FROM contactsync.conflicts k
			WHERE k.tenant_id = contactsync.current_tenant() AND k.contact_id = who AND k.decision_id = d.id AND k.state IN ('open', 'assigned'))
		-- a tombstone may have fallen since
		AND NOT (decided IS NULL AND cell_element <> '' AND EXISTS (SELECT FROM contactsync.contacts c
			WHERE c.tenant_id = contactsync.current_tenant() AND c.id = who
				AND contactsync._has(c.contact, cell_field, cell_element))));
	IF NOT made THEN
		decision := d.id;
		RETURN;
	END IF;
	decision := contactsync._decide('override', mine, field => cell_field, element => cell_element, value => decided, chosen => chosen,
		seen => contactsync._seen(who, cell_field, cell_element), part_of => whole, note => reason);
END
$$;

CREATE FUNCTION contactsync._override_field(contact uuid, field text, value jsonb, reason text) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	who uuid;
	cell record;
	result record;
BEGIN
	PERFORM contactsync._require_active();
	PERFORM contactsync._lock_tenant();
	IF field IS NULL OR value IS NULL THEN
		RAISE EXCEPTION 'field and value must not be null' USING ERRCODE = 'null_value_not_allowed',
			HINT = 'The value null as JSON decides that there is none.';
	END IF;
	who := contactsync._require_contact(contact);
	SELECT c.* INTO cell FROM contactsync._cell(contactsync._current_policy(), field, value) c;
	SELECT o.* INTO result FROM contactsync._override(who, cell.field, cell.element, cell.decided, NULL, reason, NULL) o;
	IF result.made THEN
		PERFORM contactsync._resolve_contacts(ARRAY[who], 'decision', result.decision);
	END IF;
	RETURN result.decision;
END
$$;
CREATE FUNCTION contactsync.override_field(contact uuid, field text, value jsonb, reason text DEFAULT NULL) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.override_field(uuid, text, jsonb, text) IS
	'Decide what a field of a contact is, above every rule, until release_override(): a field, a group (name, job), a list, metadata.<key> or one element, as in emails:<address>; the value null as JSON = none, which for an element lasts until a source asserts it anew. Returns the decision, for undo(); the same again makes no new one. A source that says something new opens a conflict with the reason stale. Errors: P0002 no such contact, 22023, 22004.';

CREATE FUNCTION contactsync._release_override(contact uuid, field text, reason text) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	who uuid;
	mine bigint[];
	cell record;
	unit text;
	d contactsync.decisions;
	made bigint;
	result bigint;
BEGIN
	PERFORM contactsync._require_active();
	PERFORM contactsync._lock_tenant();
	who := contactsync._require_contact(contact);
	mine := contactsync._records_of(who);
	SELECT c.* INTO cell FROM contactsync._cell(contactsync._current_policy(), field, NULL) c;
	unit := contactsync._unit(cell.field);
	-- of older ones on the cell, too: none shall come up again; what is named whole goes with its parts
	FOR d IN SELECT f.* FROM contactsync._in_force(mine, unit) f
		WHERE f.kind = 'override' AND ((f.field, f.element) = (cell.field, cell.element)
			OR cell.element = '' AND cell.field = unit)
	LOOP
		made := contactsync._decide('release', mine, field => d.field, element => d.element, target => d.id, part_of => result, note => reason);
		result := coalesce(result, made);
	END LOOP;
	IF result IS NOT NULL THEN
		PERFORM contactsync._resolve_contacts(ARRAY[who], 'decision', result);
	END IF;
	RETURN result;
END
$$;
CREATE FUNCTION contactsync.release_override(contact uuid, field text, reason text DEFAULT NULL) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.release_override(uuid, text, text) IS
	'Let the rules decide a field again that override_field() decided; a group or list named whole goes with its parts. Returns the decision, for undo(), or NULL if there was nothing to release. Errors: P0002 no such contact, 22023.';
GRANT EXECUTE ON FUNCTION contactsync.override_field(uuid, text, jsonb, text), contactsync.release_override(uuid, text, text)
	TO contactsync_app, contactsync_admin;

-- ---- back to what was ----

CREATE FUNCTION contactsync._revert_contact(contact uuid, ts timestamptz, reason text) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	who uuid;
	was contactsync.contact;
	difference record;
	whole bigint;
	cell record;
	name text;
	value jsonb;
	decided record;
BEGIN
	PERFORM contactsync._require_active();
	PERFORM contactsync._lock_tenant();
	IF ts IS NULL THEN
		RAISE EXCEPTION 'the time must not be null' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	who := contactsync._require_contact(contact);
	was := contactsync._contact_as_of(contact, ts);
	IF was IS NULL THEN
		RAISE EXCEPTION 'there was no such contact at that time' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'Give a time at which contactsync.contact_as_of() shows it.';
	END IF;
	SELECT p.* INTO difference FROM contactsync._patch(contactsync._edited(who), was) p;
	FOR name, value IN SELECT f.key, f.value FROM pg_catalog.jsonb_each(difference.cells) f
	LOOP
		whole := coalesce(whole, contactsync._decide('revert', contactsync._records_of(who), note => reason));
		SELECT c.* INTO cell FROM contactsync._cell(contactsync._current_policy(), name, value) c;
		SELECT o.* INTO decided FROM contactsync._override(who, cell.field, cell.element, cell.decided, NULL, reason, whole) o;
	END LOOP;
	IF whole IS NOT NULL THEN
		PERFORM contactsync._resolve_contacts(ARRAY[who], 'decision', whole);
	END IF;
	RETURN whole;
END
$$;
CREATE FUNCTION contactsync.revert_contact(contact uuid, ts timestamptz, reason text DEFAULT NULL) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.revert_contact(uuid, timestamptz, text) IS
	'Make a contact what contact_as_of() shows for a time, by overrides of all that differs. Returns the decision, for undo() of all of it at once, or NULL if nothing differs. Errors: P0002 no such contact, 22023 not then, 22004.';
GRANT EXECUTE ON FUNCTION contactsync.revert_contact(uuid, timestamptz, text) TO contactsync_app, contactsync_admin;

CREATE VIEW contactsync.overrides WITH (security_invoker = true) AS
WITH p AS MATERIALIZED (SELECT contactsync.current_policy() AS policy)
SELECT c.id AS contact_id,
	contactsync._cell_name(d.field, d.element) AS field,
	contactsync._cell_value(d.field, d.element, d.value) AS value,
	EXISTS (SELECT FROM contactsync.conflicts k
		WHERE k.tenant_id = d.tenant_id AND k.contact_id = c.id AND k.decision_id = d.id AND k.reason IN ('stale', 'split')
			AND k.state IN ('open', 'assigned')) AS stale,
	d.decided_at,
	d.decided_by,
	d.note AS reason,
	d.id AS decision
FROM p
CROSS JOIN contactsync.decisions d
CROSS JOIN LATERAL (
	SELECT DISTINCT r.contact_id FROM contactsync.records r
	WHERE r.tenant_id = d.tenant_id AND r.id = ANY (d.records)) h
JOIN contactsync.contacts c ON c.tenant_id = d.tenant_id AND c.id = h.contact_id
WHERE d.tenant_id = contactsync.current_tenant() AND d.kind = 'override' AND d.undone_by IS NULL
	AND NOT EXISTS (SELECT FROM contactsync.records r
		CROSS JOIN LATERAL (SELECT x.decision_id FROM contactsync.decision_records x
			WHERE x.tenant_id = r.tenant_id AND x.record_id = r.id OFFSET 0) n
		CROSS JOIN LATERAL (SELECT x.* FROM contactsync.decisions x WHERE x.tenant_id = r.tenant_id AND x.id = n.decision_id OFFSET 0) l
		WHERE r.tenant_id = c.tenant_id AND r.contact_id = c.id AND l.undone_by IS NULL
			AND CASE l.kind WHEN 'release' THEN l.target = d.id
				WHEN 'override' THEN (l.decided_at, l.id) > (d.decided_at, d.id)
					AND ((l.field, l.element) = (d.field, d.element) OR l.element = '' AND l.field = contactsync.merge_policy_unit(p.policy, d.field))
				WHEN 'resolve' THEN (l.decided_at, l.id) > (d.decided_at, d.id)
					AND ((l.field, l.element) = (d.field, d.element) OR l.element = '' AND l.field = contactsync.merge_policy_unit(p.policy, d.field))
				ELSE false END)
	AND NOT (d.value IS NULL AND d.element <> '' AND contactsync._has(c.contact, d.field, d.element));
COMMENT ON VIEW contactsync.overrides IS
	'What override_field() decided; stale: a source says something new since, or some of its records are another contact''s by now, and a conflict asks what shall be. A removed element is gone from here once a source has asserted it anew.';
GRANT SELECT ON contactsync.overrides TO contactsync_app, contactsync_analyst, contactsync_admin;
GRANT EXECUTE ON FUNCTION contactsync._cell_name(text, text), contactsync._cell_value(text, text, jsonb),
	contactsync._has(contactsync.contact, text, text) TO contactsync_app, contactsync_analyst, contactsync_admin;
