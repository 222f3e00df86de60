-- Who is who: decisions about records and contacts, and what evidence could not settle.

-- Let decisions about links, which came into force or went out of it, take effect.
CREATE FUNCTION contactsync._apply_links(decisions bigint[], cause_id bigint) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	named bigint[];
BEGIN
	-- an id is carried by the first-known record of those that kept it in its last split
	UPDATE contactsync.contact_aliases a SET record_id = c.record_id,
		reused_at = (SELECT r.reused_at FROM contactsync.records r WHERE r.tenant_id = contactsync.current_tenant() AND r.id = c.record_id)
	FROM (SELECT DISTINCT d.contact_id FROM contactsync.decisions d
			WHERE d.tenant_id = contactsync.current_tenant() AND d.id = ANY (decisions) AND d.kind = 'split') k
		CROSS JOIN LATERAL (
			SELECT coalesce((SELECT d.records[1] FROM contactsync.decisions d
				WHERE d.tenant_id = contactsync.current_tenant() AND d.contact_id = k.contact_id AND d.kind = 'split' AND d.undone_by IS NULL
				ORDER BY d.decided_at DESC, d.id DESC LIMIT 1),
				(SELECT x.minted_for FROM contactsync.contact_aliases x
				WHERE x.tenant_id = contactsync.current_tenant() AND x.id = k.contact_id)) AS record_id) c
	WHERE a.tenant_id = contactsync.current_tenant() AND a.id = k.contact_id AND a.record_id <> c.record_id;

	SELECT pg_catalog.array_agg(DISTINCT r ORDER BY r) INTO named
	FROM contactsync.decisions d, pg_catalog.unnest(d.records || d.others) r
	WHERE d.tenant_id = contactsync.current_tenant() AND d.id = ANY (decisions) AND d.kind IN ('link', 'unlink', 'merge', 'split');
	IF named IS NOT NULL THEN
		PERFORM contactsync._relink(named, 'decision', cause_id);
	END IF;
END
$$;

-- The contact that a contact's id, present or former, leads to.
CREATE FUNCTION contactsync._current_contact(contact uuid) RETURNS uuid
	LANGUAGE sql STABLE PARALLEL RESTRICTED AS $$
	SELECT r.contact_id FROM contactsync.contact_aliases a
	JOIN contactsync.records r ON r.tenant_id = a.tenant_id AND r.id = a.record_id
	WHERE a.tenant_id = contactsync.current_tenant() AND a.id = _current_contact.contact
		AND a.reused_at IS NOT DISTINCT FROM r.reused_at
$$;
CREATE FUNCTION contactsync.current_contact(contact uuid) RETURNS uuid
	LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.current_contact(uuid) IS
	'The contact that an id leads to now, however often it was merged or split since; NULL = no contact ever had it.';
GRANT EXECUTE ON FUNCTION contactsync.current_contact(uuid) TO contactsync_app, contactsync_analyst, contactsync_admin;

CREATE VIEW contactsync.contact_ids WITH (security_invoker = true) AS
SELECT a.id, r.contact_id
FROM contactsync.contact_aliases a
JOIN contactsync.records r ON r.tenant_id = a.tenant_id AND r.id = a.record_id AND r.reused_at IS NOT DISTINCT FROM a.reused_at
WHERE a.tenant_id = contactsync.current_tenant();
COMMENT ON VIEW contactsync.contact_ids IS
	'Every id that a contact ever had, and the contact that it leads to now: joins rows of applications, which refer to contact_aliases, with the directory.';
GRANT SELECT ON contactsync.contact_ids TO contactsync_app, contactsync_analyst, contactsync_admin;
-- for foreign keys of applications
GRANT REFERENCES ON contactsync.contact_aliases TO contactsync_app, contactsync_admin;

CREATE FUNCTION contactsync._require_contact(contact uuid) RETURNS uuid
	LANGUAGE plpgsql STABLE PARALLEL UNSAFE AS $$
DECLARE
	result uuid := contactsync._current_contact(contact);
BEGIN
	IF result IS NULL THEN
		RAISE EXCEPTION 'contact % does not exist', coalesce(contact::text, 'NULL') USING ERRCODE = 'no_data_found',
			HINT = 'See contactsync.directory; former ids, in contactsync.contact_aliases, serve as well.';
	END IF;
	RETURN result;
END
$$;

CREATE FUNCTION contactsync._merge_contacts(survivor uuid, other uuid, reason text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	kept uuid;
	gone uuid;
	decision bigint;
BEGIN
	PERFORM contactsync._require_active();
	PERFORM contactsync._lock_tenant();
	kept := contactsync._require_contact(survivor);
	gone := contactsync._require_contact(other);
	IF kept = gone THEN
		RAISE NOTICE 'the two ids are of one contact already';
		RETURN;
	END IF;
	decision := contactsync._decide('merge', contactsync._records_of(kept), others => contactsync._records_of(gone),
		note => reason, contact_id => kept);
	PERFORM contactsync._apply_links(ARRAY[decision], decision);
END
$$;
CREATE FUNCTION contactsync.merge_contacts(survivor uuid, other uuid, reason text DEFAULT NULL) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.merge_contacts(uuid, uuid, text) IS
	'Decide that two contacts are one person: the survivor''s id stays, and the other''s leads to it. Beats evidence, and decisions of before that kept them apart. Nothing if they are one already. Former ids serve as well. See split_contact() and undo(). Errors: P0002 no such contact, 55000 dormant copy.';

CREATE FUNCTION contactsync._split_contact(contact uuid, records bigint[], reason text) RETURNS uuid
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	kept uuid;
	whole bigint[];
	listed bigint[];
	stranger bigint;
	decision bigint;
BEGIN
	PERFORM contactsync._require_active();
	PERFORM contactsync._lock_tenant();
	kept := contactsync._require_contact(contact);
	whole := contactsync._records_of(kept);
	SELECT pg_catalog.array_agg(DISTINCT r ORDER BY r) INTO listed FROM pg_catalog.unnest(records) r;
	IF listed IS NULL OR pg_catalog.array_position(listed, NULL) IS NOT NULL THEN
		RAISE EXCEPTION 'no records are given' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'List the records to be taken out, by contactsync.records.id.';
	END IF;
	SELECT r INTO stranger FROM pg_catalog.unnest(listed) r WHERE r <> ALL (whole) LIMIT 1;
	IF FOUND THEN
		-- the same call again: they have been taken out
		IF NOT listed && whole AND EXISTS (SELECT FROM contactsync.decisions d
				WHERE d.tenant_id = contactsync.current_tenant() AND d.contact_id = kept AND d.kind = 'split'
					AND d.others = listed AND d.undone_by IS NULL) THEN
			RETURN (SELECT r.contact_id FROM contactsync.records r
				WHERE r.tenant_id = contactsync.current_tenant() AND r.id = listed[1]);
		END IF;
		RAISE EXCEPTION 'record % does not belong to the contact', stranger USING ERRCODE = 'invalid_parameter_value',
			HINT = 'See contactsync.records.contact_id.';
	END IF;
	IF listed = whole THEN
		RAISE EXCEPTION 'nothing would be left of the contact' USING ERRCODE = 'invalid_parameter_value',
			HINT = 'List some of its records: those that are not listed keep the id.';
	END IF;
	decision := contactsync._decide('split',
		(SELECT pg_catalog.array_agg(r ORDER BY r) FROM pg_catalog.unnest(whole) r WHERE r <> ALL (listed)),
		others => listed, note => reason, contact_id => kept);
	PERFORM contactsync._apply_links(ARRAY[decision], decision);
	RETURN (SELECT r.contact_id FROM contactsync.records r
		WHERE r.tenant_id = contactsync.current_tenant() AND r.id = listed[1]);
END
$$;
CREATE FUNCTION contactsync.split_contact(contact uuid, records bigint[], reason text DEFAULT NULL) RETURNS uuid
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.split_contact(uuid, bigint[], text) IS
	'Decide that some of a contact''s records (records.id) are another person, and return that contact''s id: the one that they had before, else a new one. What is not listed keeps the id. Each part has the values of its own records. Errors: P0002 no such contact, 22023 all records, none, or one of another contact, 55000 dormant copy.';

-- One way or the other for a pair of records.
CREATE FUNCTION contactsync._decide_pair(kind text, a bigint, b bigint, reason text) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	missing bigint;
	decision bigint;
BEGIN
	PERFORM contactsync._require_active();
	PERFORM contactsync._lock_tenant();
	SELECT u.id INTO missing FROM pg_catalog.unnest(ARRAY[a, b]) u (id)
	WHERE NOT EXISTS (SELECT FROM contactsync.records r WHERE r.tenant_id = contactsync.current_tenant() AND r.id = u.id) LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'record % does not exist', coalesce(missing::text, 'NULL') USING ERRCODE = 'no_data_found',
			HINT = 'See contactsync.records.';
	ELSIF a = b THEN
		RAISE EXCEPTION 'two records are needed' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	-- the latest word on this pair: to say it again would change nothing
	SELECT d.id INTO decision FROM contactsync.decisions d
	WHERE d.tenant_id = contactsync.current_tenant() AND d.kind = _decide_pair.kind AND d.undone_by IS NULL
		AND d.id = (SELECT x.decision_id FROM contactsync.decision_records x
			JOIN contactsync.decision_records y ON y.tenant_id = x.tenant_id AND y.decision_id = x.decision_id AND y.record_id = b
			JOIN contactsync.decisions z ON z.tenant_id = x.tenant_id AND z.id = x.decision_id AND z.undone_by IS NULL
				AND z.kind IN ('link', 'unlink', 'merge', 'split')
			WHERE x.tenant_id = contactsync.current_tenant() AND x.record_id = a
			ORDER BY z.decided_at DESC, z.id DESC LIMIT 1);
	IF FOUND THEN
		RETURN decision;
	END IF;
	decision := contactsync._decide(_decide_pair.kind, ARRAY[a], others => ARRAY[b], note => reason);
	PERFORM contactsync._apply_links(ARRAY[decision], decision);
	RETURN decision;
END
$$;
CREATE FUNCTION contactsync._link_records(record bigint, other bigint, reason text) RETURNS bigint
	LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$SELECT contactsync._decide_pair('link', record, other, reason)$$;
CREATE FUNCTION contactsync.link_records(record bigint, other bigint, reason text DEFAULT NULL) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.link_records(bigint, bigint, text) IS
	'Decide that two records (records.id) are one person, and return the decision''s id; the contact of the first-known one keeps its id. A later decision beats an earlier one. Errors: P0002 no such record, 22023, 55000 dormant copy.';
CREATE FUNCTION contactsync._unlink_records(record bigint, other bigint, reason text) RETURNS bigint
	LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$SELECT contactsync._decide_pair('unlink', record, other, reason)$$;
CREATE FUNCTION contactsync.unlink_records(record bigint, other bigint, reason text DEFAULT NULL) RETURNS bigint
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.unlink_records(bigint, bigint, text) IS
	'Decide that two records (records.id) are two people, whatever they share, and return the decision''s id. Of a pair in duplicates: it is not shown again. A later decision beats an earlier one. Errors: P0002 no such record, 22023, 55000 dormant copy.';
GRANT EXECUTE ON FUNCTION contactsync.merge_contacts(uuid, uuid, text), contactsync.split_contact(uuid, bigint[], text),
	contactsync.link_records(bigint, bigint, text), contactsync.unlink_records(bigint, bigint, text)
	TO contactsync_app, contactsync_admin;

CREATE FUNCTION contactsync._current_identity_policy() RETURNS jsonb
	LANGUAGE sql STABLE PARALLEL RESTRICTED AS $$
	SELECT coalesce((SELECT p.policy FROM contactsync.identity_policies p
		WHERE p.tenant_id = contactsync.current_tenant() ORDER BY p.version DESC LIMIT 1), '{}')
$$;
CREATE FUNCTION contactsync.current_identity_policy() RETURNS jsonb
	LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.current_identity_policy() IS 'What was set by set_identity_policy(); all else is as by default.';

CREATE FUNCTION contactsync._set_identity_policy(changes jsonb) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE AS $$
DECLARE
	known jsonb;
	changed jsonb;
	m record;
BEGIN
	PERFORM contactsync._require_active();
	PERFORM contactsync._lock_tenant();
	IF changes IS NULL OR pg_catalog.jsonb_typeof(changes) <> 'object' THEN
		RAISE EXCEPTION 'the changes must be a JSON object' USING ERRCODE = 'invalid_parameter_value';
	END IF;
	FOR m IN SELECT e.key, e.value, pg_catalog.jsonb_typeof(e.value) AS type FROM pg_catalog.jsonb_each(changes) e LOOP
		IF NOT (CASE
				WHEN m.type = 'null' THEN m.key IN ('generic_names', 'max_records') OR m.key ~ '^metadata[.].'
				WHEN m.key = 'generic_names' THEN m.type = 'number' AND m.value BETWEEN '1' AND '1000' AND m.value #>> '{}' ~ '^[0-9]+$'
				WHEN m.key = 'max_records' THEN m.type = 'number' AND m.value BETWEEN '2' AND '1000' AND m.value #>> '{}' ~ '^[0-9]+$'
				WHEN m.key ~ '^metadata[.].' THEN m.value = '"exclusive"'
				ELSE false END) THEN
			RAISE EXCEPTION 'invalid member "%" of an identity policy', m.key USING ERRCODE = 'invalid_parameter_value',
				HINT = 'Members are generic_names (1 to 1000), max_records (2 to 1000), and metadata.<key>, which can be "exclusive"; null sets one back.';
		END IF;
	END LOOP;
	known := contactsync._current_identity_policy();
	changed := pg_catalog.jsonb_strip_nulls(known || changes);
	IF changed = known THEN
		RETURN;
	END IF;
	-- of older ones nothing is left to do
	UPDATE contactsync.identity_policies p SET next_record = NULL
	WHERE p.tenant_id = contactsync.current_tenant() AND p.next_record IS NOT NULL;
	INSERT INTO contactsync.identity_policies (version, policy)
	SELECT coalesce(pg_catalog.max(p.version), 0) + 1, changed FROM contactsync.identity_policies p
	WHERE p.tenant_id = contactsync.current_tenant();
END
$$;
CREATE FUNCTION contactsync.set_identity_policy(changes jsonb) RETURNS void
	LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.set_identity_policy(jsonb) IS
	'Change what makes records one person: generic_names (default 8: a key of people with more names stands for nobody), max_records (default 100: evidence puts no more into one contact, and a key of more stands for nobody), "metadata.<key>": "exclusive" (an id: the same one links, different ones keep apart). null sets a member back. process() then links all records anew, some at a time. Errors: 22023, 55000 dormant copy.';
GRANT EXECUTE ON FUNCTION contactsync.current_identity_policy() TO contactsync_app, contactsync_analyst, contactsync_admin;
GRANT EXECUTE ON FUNCTION contactsync.set_identity_policy(jsonb) TO contactsync_admin;

CREATE VIEW contactsync.duplicates WITH (security_invoker = true) AS
SELECT r.contact_id, o.contact_id AS other_id, f.reason, f.score::numeric(3,2) AS score, f.key, f.record_id, f.other_id AS other_record_id
FROM contactsync.refused_links f
JOIN contactsync.records r ON r.tenant_id = f.tenant_id AND r.id = f.record_id
JOIN contactsync.records o ON o.tenant_id = f.tenant_id AND o.id = f.other_id
JOIN contactsync.contacts c ON c.tenant_id = f.tenant_id AND c.id = r.contact_id AND c.live
JOIN contactsync.contacts d ON d.tenant_id = f.tenant_id AND d.id = o.contact_id AND d.live
WHERE f.tenant_id = contactsync.current_tenant();
COMMENT ON VIEW contactsync.duplicates IS
	'Pairs of contacts that may be one person: they share keys, and were not linked. reason: names_disagree, names_unknown (and the key is one that people share), ids_differ, same_source (which has both), oversize. score: 0 to 1, how much speaks for one person. Settle a pair by merge_contacts(contact_id, other_id), or by unlink_records(record_id, other_record_id).';
COMMENT ON COLUMN contactsync.duplicates.key IS 'The strongest of the keys that both have.';
GRANT SELECT ON contactsync.duplicates TO contactsync_app, contactsync_analyst, contactsync_admin;
