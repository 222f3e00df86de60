-- Reading contacts.

CREATE VIEW contactsync.directory WITH (security_invoker = true) AS
SELECT c.id,
	c.contact OPERATOR(contactsync.->>) 'first_name' AS first_name,
	c.contact OPERATOR(contactsync.->>) 'middle_name' AS middle_name,
	c.contact OPERATOR(contactsync.->>) 'last_name' AS last_name,
	c.contact OPERATOR(contactsync.->>) 'prefix' AS prefix,
	c.contact OPERATOR(contactsync.->>) 'suffix' AS suffix,
	c.contact OPERATOR(contactsync.->>) 'nickname' AS nickname,
	c.contact OPERATOR(contactsync.->>) 'company' AS company,
	c.contact OPERATOR(contactsync.->>) 'department' AS department,
	c.contact OPERATOR(contactsync.->>) 'title' AS title,
	c.contact OPERATOR(contactsync.->>) 'birthday' AS birthday,
	c.contact OPERATOR(contactsync.->>) 'note' AS note,
	c.contact OPERATOR(contactsync.->>) 'photo' AS photo,
	coalesce(c.contact OPERATOR(contactsync.->) 'emails', '[]') AS emails,
	coalesce(c.contact OPERATOR(contactsync.->) 'phones', '[]') AS phones,
	coalesce(c.contact OPERATOR(contactsync.->) 'addresses', '[]') AS addresses,
	coalesce(c.contact OPERATOR(contactsync.->) 'urls', '[]') AS urls,
	ARRAY(SELECT pg_catalog.jsonb_array_elements_text(c.contact OPERATOR(contactsync.->) 'tags')) AS tags,
	coalesce(c.contact OPERATOR(contactsync.->) 'metadata', '{}') AS metadata,
	c.contact,
	n.source,
	n.source_id,
	(SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('source', r.source, 'source_id', r.source_id)
			ORDER BY r.source, r.source_id)
	 FROM contactsync.records r
	 WHERE r.tenant_id = c.tenant_id AND r.contact_id = c.id AND r.alive) AS sources,
	contactsync.contact_provenance(c.contact) AS provenance,
	(SELECT pg_catalog.count(*)::integer FROM contactsync.conflicts k
	 WHERE k.tenant_id = c.tenant_id AND k.contact_id = c.id AND k.state IN ('open', 'assigned')) AS open_conflicts,
	c.version,
	c.last_modified,
	c.modified_by
FROM contactsync.contacts c
LEFT JOIN contactsync.records n ON n.tenant_id = c.tenant_id AND n.id = c.naming_record
WHERE c.tenant_id = contactsync.current_tenant() AND c.live;
COMMENT ON VIEW contactsync.directory IS
	'The canonical contacts of the active tenant, every field a column; source and source_id are of the record that names the contact.';
GRANT SELECT ON contactsync.directory TO contactsync_app, contactsync_analyst, contactsync_admin;

-- The keys that a value has as an exclusive id, of each kind that is declared; see set_identity_policy().
CREATE FUNCTION contactsync._id_keys(value text) RETURNS text[]
	LANGUAGE sql STABLE PARALLEL RESTRICTED AS $$
	SELECT pg_catalog.array_agg(DISTINCT 'id:' || pg_catalog.regexp_replace(pg_catalog.substr(d.key, 10), '([:\\])', '\\\1', 'g') || ':'
		|| pg_catalog.lower(pg_catalog.regexp_replace(pg_catalog.btrim(value), '\s+', ' ', 'g')))
	FROM (SELECT k.key, k.value AS rule FROM contactsync.sources s CROSS JOIN LATERAL pg_catalog.jsonb_each(s.settings -> 'identity') k
			WHERE s.tenant_id = contactsync.current_tenant()
		UNION ALL
		SELECT k.key, k.value FROM pg_catalog.jsonb_each((SELECT p.policy FROM contactsync.identity_policies p
			WHERE p.tenant_id = contactsync.current_tenant() ORDER BY p.version DESC LIMIT 1)) k) d
	WHERE d.rule = '"exclusive"'
$$;
CREATE FUNCTION contactsync._find(key text) RETURNS SETOF uuid
	LANGUAGE sql STABLE PARALLEL RESTRICTED AS $$
	SELECT r.contact_id FROM contactsync.records r
	JOIN contactsync.contacts c ON c.tenant_id = r.tenant_id AND c.id = r.contact_id AND c.live
	WHERE r.tenant_id = contactsync.current_tenant() AND (r.alive OR r.merged_into IS NOT NULL) AND r.id = ANY (ARRAY(
		SELECT i.record_id FROM pg_catalog.unnest(contactsync.contact_keys(
				pg_catalog.jsonb_build_object('emails', ARRAY[_find.key], 'phones', ARRAY[_find.key])::contactsync.contact)
			|| contactsync._id_keys(_find.key)) k
		JOIN contactsync.identities i ON i.tenant_id = contactsync.current_tenant() AND i.key = k
		UNION ALL
		SELECT x.id FROM contactsync.sources s CROSS JOIN LATERAL (SELECT y.id FROM contactsync.records y
			WHERE y.tenant_id = contactsync.current_tenant() AND y.source = s.name AND y.source_id = _find.key OFFSET 0) x
		WHERE s.tenant_id = contactsync.current_tenant()))
	GROUP BY r.contact_id ORDER BY r.contact_id
$$;
CREATE FUNCTION contactsync.find(key text) RETURNS SETOF uuid
	LANGUAGE C STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.find(text) IS
	'Ids of the contacts that a mail address, an international phone number, a source''s own id of a record (of one merged away at the source, too) or an exclusive id belongs to.';

CREATE FUNCTION contactsync._explain(contact_id uuid, field text)
	RETURNS TABLE (field_ text, rank integer, value jsonb, source text, source_id text, changed_at timestamptz,
		as_of timestamptz, rule text, verdict text, claim text, decided_by text,
		estimate boolean, stale boolean, support integer)
	LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'store_explain_sql';
-- an argument and a column of one name: only positions can have that
CREATE FUNCTION contactsync.explain(contact_id uuid, text DEFAULT NULL)
	RETURNS TABLE (field text, rank integer, value jsonb, source text, source_id text, changed_at timestamptz,
		as_of timestamptz, rule text, verdict text, claim text, decided_by text,
		estimate boolean, stale boolean, support integer)
	LANGUAGE C STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'guard_call';
COMMENT ON FUNCTION contactsync.explain(uuid, text) IS
	'Every claim on every cell of a contact, or of the field named second, best first: who says it since when, the rule that weighed it and the verdict; estimate tells of a changed_at that was not witnessed, stale of a claim that the decision in force did not know; support is the number of independent live sources that say so. Errors: P0002 no such contact, 22023 no such field.';
GRANT EXECUTE ON FUNCTION contactsync.find(text), contactsync.explain(uuid, text)
	TO contactsync_app, contactsync_analyst, contactsync_admin;

-- Not in the way of anything, but somebody should know.
CREATE VIEW contactsync.record_notices WITH (security_invoker = true) AS
SELECT r.source, r.source_id, r.id AS record_id, r.contact_id, n.notice, n.detail
FROM contactsync.records r CROSS JOIN LATERAL (
	SELECT 'zombie' AS notice, NULL AS detail WHERE r.zombie
	UNION ALL
	SELECT 'same_version_conflict', r.same_version_conflicts::text WHERE r.same_version_conflicts > 0
	UNION ALL
	SELECT 'uncovered', pg_catalog.array_to_string(r.uncovered, ', ') WHERE r.uncovered <> '{}') AS n
WHERE r.tenant_id = contactsync.current_tenant()
	AND (r.zombie OR r.same_version_conflicts > 0 OR r.uncovered <> '{}');
COMMENT ON VIEW contactsync.record_notices IS
	'What is odd about records of the active tenant. zombie: deleted, but something newer without proof of life is held; same_version_conflict: how many observations lost to another one of the same version; uncovered: fields that the newest snapshot no longer speaks about, and that keep what an older one said.';
GRANT SELECT ON contactsync.record_notices TO contactsync_app, contactsync_analyst, contactsync_admin;
